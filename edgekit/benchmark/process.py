"""Running the measured process and reading its messages."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import edgekit
from edgekit import errors
from edgekit.benchmark.worker import Request
from edgekit.bundle import Bundle
from edgekit.errors import DoesNotFit, EdgekitError, SessionError
from edgekit.progress import Progress

#: The same edgekit, wherever this process found it: `python -m` would prefer one in the current directory.
_START = "import sys; sys.path.insert(0, sys.argv[1]); from edgekit.benchmark.worker import main; main()"


def run_worker(request: Request, progress: Progress) -> dict[str, Any]:
    """The worker's result.

    Raises:
        EdgekitError: what the worker met; DoesNotFit when the system killed it for lack of memory.
    """
    command = [sys.executable, "-c", _START, str(Path(edgekit.__file__).parents[1])]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):  # it died at once: its exit code tells
                process.stdin.write(request.to_json())
                process.stdin.close()
            answer = _last_message(process, progress)
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        log.seek(0)
        tail = log.read().strip().splitlines()[-1:]
    if answer is None:
        raise _died(code, tail[0] if tail else "")
    if "error" in answer:
        raise _rebuilt(answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


def _last_message(process: subprocess.Popen[str], progress: Progress) -> dict[str, Any] | None:
    """Pass progress on until the answer comes; None when the worker ended without one."""
    assert process.stdout is not None
    for line in process.stdout:
        message: dict[str, Any] = json.loads(line)
        if "stage" in message:
            progress.stage(message["stage"], message["total"], message["unit"])
        elif "advance" in message:
            progress.advance(message["advance"])
        elif "note" in message:
            progress.note(message["note"])
        else:
            return message
    return None


def _died(code: int, last_line: str) -> EdgekitError:
    if code == -signal.SIGKILL:
        return DoesNotFit(
            "the model and its cache must fit in memory",
            "the measured process was killed, as systems do when memory runs out",
            "close other programs, or measure shorter --prompt-tokens and --depth",
        )
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return SessionError(
        "the measured process must end with a result",
        f"it ended with {ended}{': ' if last_line else ''}{last_line}",
        "check the installation: edgekit doctor",
    )


def _rebuilt(error: dict[str, Any]) -> EdgekitError:
    """The error that the worker met, of the same class."""
    kind: type[EdgekitError] = getattr(errors, error["type"], EdgekitError)
    return kind(*error["parts"])


def drop_file_cache(bundle: Bundle) -> bool:
    """Ask the system to forget the bundle's files, so that the next load reads the disk; False where it cannot be."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for entry in bundle.manifest.files:
        descriptor = os.open(bundle.path / entry.name, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True
