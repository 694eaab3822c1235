"""Progress on stderr: bars where a person looks on, plain lines in a log. Never on stdout, which is for results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from edgekit.progress import Progress
from edgekit.words import counted

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, Task, TaskID
    from rich.text import Text


@contextmanager
def displayed_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """A display for the block: one line per stage, the last one marked failed when the block raises."""
    stream = stream or sys.stderr
    redrawable = stream.isatty() and os.environ.get("TERM") != "dumb"
    display = LiveProgress(stream) if redrawable else PlainProgress(stream)
    try:
        yield display
    except BaseException:
        display.close(failed=True)
        raise
    display.close()


class PlainProgress:
    """A line when a stage starts and one when it ends, without escape codes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._name: str | None = None
        self._unit = ""
        self._done = 0
        self._started = 0.0

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        self._end("done")
        self._name, self._unit, self._done, self._started = name, unit, 0, time.monotonic()
        self._print(f"{name} ..." if total is None else f"{name} ... ({amount(total, unit)})")

    def advance(self, n: int = 1) -> None:
        self._done += n

    def note(self, text: str) -> None:
        self._print(f"  {text}")

    def close(self, failed: bool = False) -> None:
        """End the last stage."""
        self._end("failed" if failed else "done")

    def _end(self, how: str) -> None:
        if self._name is None:
            return
        counted = f", {amount(self._done, self._unit)}" if self._done else ""
        self._print(f"{self._name}: {how} in {duration(time.monotonic() - self._started)}{counted}")
        self._name = None

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class LiveProgress:
    """A bar per stage with count, elapsed and remaining time, redrawn in place on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        # `stream` is stderr or a terminal given by a test: rich must not move stdout's lines into the display.
        self._bars = Bars(
            TextColumn("{task.fields[mark]} {task.description}", markup=False),
            BarColumn(bar_width=24),
            _amount_column(),
            _time_column(),
            console=Console(file=stream),
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        self._end(failed=False)
        self._bars.start()  # not before: what comes before the first stage may draw a bar of its own, as pip does
        self._task = self._bars.add_task(name, total=total, unit=unit, mark=" ", goal=total)

    def advance(self, n: int = 1) -> None:
        if self._task is not None:
            self._bars.advance(self._task, n)

    def note(self, text: str) -> None:
        from rich.text import Text

        self._bars.console.print(Text(f"  {text}"))

    def close(self, failed: bool = False) -> None:
        """End the last stage and leave the display as it is."""
        self._end(failed)
        self._bars.stop()

    def _end(self, failed: bool) -> None:
        if self._task is None:
            return
        task = self._bars.tasks[self._bars.task_ids.index(self._task)]
        if not failed and task.total is None:  # a stage of unknown length is complete when it ends
            end = max(task.completed, 1)
            self._bars.update(self._task, total=end, completed=end)
        self._bars.update(self._task, mark="✗" if failed else "✓")
        self._bars.stop_task(self._task)
        self._task = None


def _amount_column() -> ProgressColumn:
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Amount(ProgressColumn):
        def render(self, task: Task) -> Text:
            unit = task.fields["unit"]
            done, goal = int(task.completed), task.fields["goal"]
            if goal is None:
                return Text(amount(done, unit) if done and unit else "")
            number = amount(done, unit).split()[0]  # the unit stands behind the goal
            return Text(f"{number}/{amount(goal, unit)}")

    return Amount()


def _time_column() -> ProgressColumn:
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Times(ProgressColumn):
        def render(self, task: Task) -> Text:
            elapsed = duration((task.finished_time if task.finished else task.elapsed) or 0.0)
            left = task.time_remaining
            return Text(elapsed if task.finished or left is None else f"{elapsed}, {duration(left)} left")

    return Times()


def amount(count: int, unit: str) -> str:
    """A count with its unit; bytes as megabytes."""
    return f"{count / 1e6:,.0f} MB" if unit == "bytes" else counted(count, unit).rstrip()


def duration(seconds: float) -> str:
    """Seconds as "0.4 s", "12 s" or "2:05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d} min"
