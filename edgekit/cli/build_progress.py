"""How a build is shown while it runs: a line that is redrawn, plain lines in a log, or JSON lines for machines.

Always on stderr, which is not for results.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from edgekit.cli.display_progress import duration

if TYPE_CHECKING:
    from edgekit.build.process import Tick

CHOICES = ("auto", "bar", "plain", "json", "none")

Watch = Callable[["Tick"], None]


@contextmanager
def displayed_build(how: str, expected_s: float | None, stream: TextIO | None = None) -> Iterator[Watch]:
    """What to give to the build as `watch`.

    Args:
        how: one of CHOICES; "auto" is a bar where a person looks on, else plain lines.
        expected_s: how long the build is expected to take; None where that is not known.
    """
    stream = stream or sys.stderr
    if how == "auto":
        how = "bar" if stream.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if how == "bar":
        with _bar(expected_s, stream) as watch:
            yield watch
    elif how == "json":
        yield _JsonLines(expected_s, stream)
    elif how == "plain":
        yield _Plain(expected_s, stream)
    else:
        yield lambda tick: None


class _Phases:
    """The phases that are open, outermost first."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.steps: dict[str, tuple[int, int]] = {}

    def take(self, tick: Tick) -> bool:
        """Follow a tick; whether a phase began or ended."""
        if tick.event == "start":
            if "Parsing" in self.open:  # it has no end of its own
                self.open.remove("Parsing")
            self.open.append(tick.phase)
            self.steps[tick.phase] = (0, tick.steps)
        elif tick.event == "step" and tick.phase in self.steps:
            self.steps[tick.phase] = (tick.steps, self.steps[tick.phase][1])
        elif tick.event == "end" and tick.phase in self.open:
            self.open.remove(tick.phase)
        return tick.event in ("start", "end")

    def text(self) -> str:
        if not self.open:
            return "starting"
        name = self.open[-1]
        done, total = self.steps[name]
        return f"{name.lower()} {done}/{total}" if total > 1 and done else name.lower()


def remaining(seconds: float, expected_s: float | None) -> float | None:
    """Seconds left of what was expected; None once that is over, or where nothing was."""
    return expected_s - seconds if expected_s is not None and seconds < expected_s else None


class _Plain:
    def __init__(self, expected_s: float | None, stream: TextIO) -> None:
        self._phases, self._expected, self._stream = _Phases(), expected_s, stream

    def __call__(self, tick: Tick) -> None:
        if not self._phases.take(tick) or tick.event != "start" or len(self._phases.open) > 3:
            return
        left = remaining(tick.seconds, self._expected)
        about = f", about {duration(left)} left" if left is not None else ""
        print(
            f"{tick.phase.lower()} ... (after {duration(tick.seconds)}{about}, {_memory(tick.memory_bytes)})",
            file=self._stream,
            flush=True,
        )


class _JsonLines:
    def __init__(self, expected_s: float | None, stream: TextIO) -> None:
        self._phases, self._expected, self._stream = _Phases(), expected_s, stream

    def __call__(self, tick: Tick) -> None:
        self._phases.take(tick)
        left = remaining(tick.seconds, self._expected)
        line = {
            "event": tick.event or "memory",
            "phase": tick.phase or (self._phases.open[-1] if self._phases.open else ""),
            "phases": list(self._phases.open),
            "steps": tick.steps,
            "seconds": round(tick.seconds, 3),
            "remaining_seconds": round(left, 1) if left is not None else None,
            "memory_bytes": tick.memory_bytes,
            "peak_memory_bytes": tick.peak_memory_bytes,
        }
        print(json.dumps(line), file=self._stream, flush=True)


@contextmanager
def _bar(expected_s: float | None, stream: TextIO) -> Iterator[Watch]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[facts]}"),
    )
    phases = _Phases()
    with Progress(*columns, console=Console(file=stream), redirect_stdout=False, redirect_stderr=False) as bars:
        task = bars.add_task("starting", total=expected_s, facts="")

        def watch(tick: Tick) -> None:
            phases.take(tick)
            left = remaining(tick.seconds, expected_s)
            facts = [duration(tick.seconds), _memory(tick.memory_bytes)]
            if expected_s is None:
                bars.update(task, description=phases.text(), facts=", ".join(facts))
                return
            facts.insert(1, f"about {duration(left)} left" if left is not None else "longer than expected")
            # Full only when it is done.
            completed = min(tick.seconds, 0.98 * expected_s)
            bars.update(task, description=phases.text(), completed=completed, facts=", ".join(facts))

        yield watch
        bars.update(task, description="built", total=expected_s or 1.0, completed=expected_s or 1.0)


def _memory(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
