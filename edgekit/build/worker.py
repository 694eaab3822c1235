"""The process that builds one engine: TensorRT ends its process at some mistakes, and its memory must be watched.

Run as `python -m edgekit.build.worker FD`: a job as one line of JSON on stdin, events as lines of JSON on that
descriptor. Stdin stays open while the parent lives; when it closes, this process ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edgekit.build.backends import backend_named
from edgekit.build.engine import engine_from_onnx
from edgekit.build.job import Job, build_to_dict
from edgekit.errors import EdgekitError

#: Of <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    events = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    started = time.monotonic()

    def say(**event: Any) -> None:
        events.write(json.dumps({"seconds": round(time.monotonic() - started, 3), **event}) + "\n")

    _die_with_parent()
    job = Job.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        backend = backend_named(job.backend)
        backend.load(job.device_kind)
        built = engine_from_onnx(
            Path(job.model),
            Path(job.destination),
            profiles=job.profiles,
            plugin_libraries=[Path(path) for path in job.plugin_libraries],
            expected_plugins=job.expected_plugins,
            compute_capabilities=job.compute_capabilities,
            options=job.options,
            timing_cache=Path(job.timing_cache) if job.timing_cache else None,
            listen=lambda event, phase, steps: say(event=event, phase=phase, steps=steps),
            backend=backend,
        )
    except EdgekitError as error:
        say(event="error", rule=error.rule, fact=error.fact, next_step=error.next_step)
    except OSError as error:
        say(event="os_error", errno=error.errno, text=error.strerror, file=str(error.filename or ""))
    else:
        say(event="built", build=build_to_dict(built))


def _die_with_parent() -> None:
    """Let Linux kill this process when its parent is killed; elsewhere the closing stdin ends it, once Python runs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
