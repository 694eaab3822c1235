"""Showing an answer as it comes: plain text, or Markdown in a terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.segment import Segments

#: Everything but newline and tab that a terminal would obey rather than show.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_SECONDS_PER_FRAME = 1 / 12


class Display(Protocol):
    """Where the text of one answer goes."""

    def write(self, text: str) -> None:
        """Show more of the answer."""

    def close(self) -> None:
        """The answer is over, whether it is whole or not."""


class PlainDisplay:
    """Writes every piece at once, and a newline at the end."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._ends_line = False

    def write(self, text: str) -> None:
        if text:
            self._stream.write(without_controls(text) if self._terminal else text)
            self._stream.flush()
            self._ends_line = text.endswith("\n")

    def close(self) -> None:
        if not self._ends_line:
            self._stream.write("\n")
            self._stream.flush()


class MarkdownDisplay:
    """Renders Markdown: finished blocks for good, the block in the making again and again below them."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._pending = ""
        self._printed = False
        self._drawn = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def write(self, text: str) -> None:
        self._pending += without_controls(text)
        *done, self._pending = split_blocks(self._pending)
        if done:
            self._live.update("", refresh=True)
            self._print(done)
        if done or time.monotonic() - self._drawn > _SECONDS_PER_FRAME:
            self._live.update(self._rendered(self._pending), refresh=True)
            self._drawn = time.monotonic()

    def close(self) -> None:
        self._live.update("", refresh=True)
        self._live.stop()
        self._print([self._pending])
        self._pending = ""

    def _print(self, blocks: Sequence[str]) -> None:
        for block in blocks:
            if block.strip():
                if self._printed:
                    self._console.print()
                self._console.print(self._rendered(block), end="")
                self._printed = True

    def _rendered(self, block: str) -> Segments:
        """One block without the blank lines that rich puts before some kinds: they would depend on where it was cut."""
        from rich.markdown import Markdown
        from rich.segment import Segment, Segments

        lines = self._console.render_lines(Markdown(block), pad=False)
        shown = [i for i, line in enumerate(lines) if "".join(segment.text for segment in line).strip()]
        kept = lines[shown[0] : shown[-1] + 1] if shown else []
        return Segments([segment for line in kept for segment in (*line, Segment.line())])


def without_controls(text: str) -> str:
    """`text` without control characters: what a model writes must not move a terminal's cursor or set its title."""
    return _CONTROL.sub("", text)


def split_blocks(markdown: str) -> list[str]:
    """Blocks that more text cannot change any more, and the rest as the last.

    A block ends at a blank line outside a code fence, once the next line has begun without indentation: an indented
    one would continue the item of a list.
    """
    blocks = []
    fence = None
    position = start = 0
    blank = False
    for line in markdown.splitlines(keepends=True):
        if fence is None:
            if blank and line.strip() and not line[0].isspace():
                blocks.append(markdown[start:position].strip("\n"))
                start = position
            opening = _FENCE.match(line)
            if opening:
                fence = opening[1]
        elif (closing := _FENCE.match(line)) and closing[1].startswith(fence) and not line[closing.end() :].strip():
            fence = None
        blank = fence is None and not line.strip()
        position += len(line)
    return [*blocks, markdown[start:]]
