"""Building in a process of its own, whose memory is watched and which never outlives the command that started it."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.build.engine import EngineBuild
from edgekit.build.job import Job, build_from_dict
from edgekit.device.host import memory
from edgekit.errors import BuildError, DoesNotFit

POLL_S = 0.2
#: A build is stopped before less than this is left to the machine: of its memory, and at least so many bytes.
LEAST_LEFT_SHARE, LEAST_LEFT_BYTES = 0.04, 256 << 20


@dataclass(frozen=True)
class Tick:
    """How a build is doing.

    Attributes:
        phase: TensorRT's name for what it does, "" when nothing new is known.
        event: "start", "step" or "end" of the phase; "" for memory alone.
        steps: of a phase that starts, how many it has (0: unknown); of a step, which one.
        seconds: since the build began.
        memory_bytes, peak_memory_bytes: of the build process, now and at most.
    """

    phase: str
    event: str
    steps: int
    seconds: float
    memory_bytes: int
    peak_memory_bytes: int


@dataclass(frozen=True)
class Built:
    """An engine, and the memory that its build took."""

    build: EngineBuild
    peak_memory_bytes: int


def build_in_process(
    job: Job,
    *,
    memory_limit_bytes: int | None = None,
    watch: Callable[[Tick], None] = lambda tick: None,
    command: list[str] | None = None,
) -> Built:
    """Build an engine in a child process.

    Args:
        memory_limit_bytes: most memory that the child may hold; None for what the machine can spare.
        watch: told of phases and, several times a second, of memory.
        command: what to start in the place of the builder; the descriptor for events is appended.

    Raises:
        BuildError: TensorRT refused, or ended its process.
        DoesNotFit: memory ran short, and the child was ended; or the disk is full.
        KeyboardInterrupt: passed on after the child has been ended.
    """
    read_end, write_end = os.pipe()
    arguments = [*(command or [sys.executable, "-m", "edgekit.build.worker"]), str(write_end)]
    child = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(write_end,),
        start_new_session=True,  # Ctrl-C reaches this process, which ends the child
        text=True,
    )
    os.close(write_end)
    try:
        watcher = _Watcher(child, read_end, memory_limit_bytes, watch)
        watcher.send(job)
        watcher.run()
        return watcher.result()
    finally:
        _end(child)
        os.close(read_end)


class _Watcher:
    def __init__(
        self, child: subprocess.Popen[str], events: int, limit: int | None, watch: Callable[[Tick], None]
    ) -> None:
        self._child, self._events, self._limit, self._watch = child, events, limit, watch
        self._pending = b""
        self._said: list[str] = []
        self._last: dict[str, Any] = {}
        self._peak = 0
        self._started = time.monotonic()

    def send(self, job: Job) -> None:
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # it died at once; `result` says so
            self._child.stdin.write(job.to_json() + "\n")
            self._child.stdin.flush()

    def run(self) -> None:
        """Until the child has said its last word."""
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            selector.register(self._child.stdout.fileno(), selectors.EVENT_READ)
            open_files = 2
            while open_files:
                ready = selector.select(POLL_S)
                self._check_memory()
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fd)
                        open_files -= 1
                    elif key.fd == self._events:
                        self._read(data)
                    else:
                        self._said += data.decode(errors="replace").splitlines()
        self._child.wait()

    def _read(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] in ("start", "step", "end"):
                self._tick(event["phase"], event["event"], event["steps"])
            else:
                self._last = event

    def _tick(self, phase: str = "", event: str = "", steps: int = 0) -> None:
        now = _resident_bytes(self._child.pid)
        self._peak = max(self._peak, now)
        self._watch(Tick(phase, event, steps, time.monotonic() - self._started, now, self._peak))

    def _check_memory(self) -> None:
        now, peak = _resident_bytes(self._child.pid), _resident_bytes(self._child.pid, peak=True)
        self._peak = max(self._peak, peak)
        if self._limit is not None and now > self._limit:
            raise DoesNotFit(
                "a build must keep to its memory limit",
                f"it held {_gb(now)} of at most {_gb(self._limit)}, and was stopped; the bundle is as it was",
                "raise --memory-limit, lower --max-input-len, or build where there is more memory: "
                "edgekit plan tells how much it takes",
            )
        machine = memory()
        if machine is not None and now > 0:
            least = max(LEAST_LEFT_BYTES, int(LEAST_LEFT_SHARE * machine.total_bytes))
            if machine.available_bytes < least:
                raise DoesNotFit(
                    "a build must leave the machine enough memory to go on",
                    f"it held {_gb(now)} and {_gb(machine.available_bytes)} of {_gb(machine.total_bytes)} were left; "
                    "it was stopped, and the bundle is as it was",
                    "close other programs, add swap, lower --max-input-len, or build on a larger machine: "
                    "edgekit plan tells how much it takes",
                )
        self._tick()

    def result(self) -> Built:
        event = self._last
        kind = event.get("event")
        if kind == "built":
            return Built(build_from_dict(event["build"]), self._peak)
        if kind == "error":
            raise BuildError(event["rule"], event["fact"], event["next_step"])
        if kind == "os_error":
            raise OSError(event["errno"], event["text"], event["file"] or None)
        code = self._child.returncode
        last = next((line.strip() for line in reversed(self._said) if line.strip()), "")
        if code == -signal.SIGKILL:
            raise DoesNotFit(
                "a build must fit in memory",
                f"the system ended it, as it does when memory runs out; it had held {_gb(self._peak)}",
                "close other programs, set --memory-limit, or build on a larger machine",
            )
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise BuildError(
            "TensorRT must build the engine or say why not",
            f"it ended the build process ({how})" + (f": {last}" if last else ""),
            "see what it printed: edgekit --debug build ...; the bundle is as it was",
        )


def _resident_bytes(pid: int, peak: bool = False) -> int:
    """Memory of a process, now or at most so far; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _end(child: subprocess.Popen[str]) -> None:
    """End the child, if it still runs, and all that it started."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
