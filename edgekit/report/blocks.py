"""What a page is made of. Everything here is plain text until the template escapes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgekit.report.numbers import NO_BREAK_SPACE
from edgekit.report.svg import Plot

#: How a thing stands: as a word beside it and as its colour, never as colour alone.
Mood = Literal["good", "bad", "warn", "plain"]

#: Of a section: measured with this bundle, with another one, not at all, or measured and found wrong.
State = Literal["ok", "stale", "missing", "failed"]


@dataclass(frozen=True)
class Cell:
    """A cell of a table, or a value beside a label.

    Attributes:
        code: set as code, and broken anywhere where it is long.
        note: said below in small letters.
    """

    text: str
    mood: Mood = "plain"
    code: bool = False
    note: str = ""


Text = str | Cell


@dataclass(frozen=True)
class Facts:
    """Labels with what belongs to each."""

    rows: tuple[tuple[str, Text], ...]
    kind: str = field(default="facts", init=False)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        head: of the columns; the first column holds the rows' names.
        numeric: columns, by index, that are set to the right.
        folded: shown only when asked for, under the caption.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    numeric: tuple[int, ...] = ()
    folded: bool = False
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Figure:
    """A plot with what it tells; its numbers follow as a folded table unless another block shows them."""

    plot: Plot
    caption: str = ""
    numbers: bool = True
    kind: str = field(default="figure", init=False)

    def numbers_table(self) -> Table:
        """What is drawn, as numbers."""
        head, rows = self.plot.table()
        return Table(f"Numbers: {self.plot.title}", head, rows, numeric=tuple(range(1, len(head))), folded=True)


@dataclass(frozen=True)
class Note:
    """A sentence or two, with the command that it speaks of."""

    text: str
    mood: Mood = "plain"
    command: str = ""
    kind: str = field(default="note", init=False)


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: str = field(default="heading", init=False)


Block = Facts | Table | Figure | Note | Heading


@dataclass(frozen=True)
class Tile:
    """One of the few figures that everyone looks for first."""

    label: str
    value: str
    note: str = ""
    mood: Mood | Literal["quiet"] = "plain"

    @property
    def number(self) -> str:
        """The value without its unit."""
        return self.value.partition(NO_BREAK_SPACE)[0]

    @property
    def unit(self) -> str:
        """The unit, where the value is a quantity."""
        return self.value.partition(NO_BREAK_SPACE)[2]


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        name: unique on the page, of letters, digits and hyphens.
        intro: a sentence below the title.
        label: in the navigation; the title where it is empty.
        data: what it was made from, for JSON.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]
    intro: str = ""
    state: State = "ok"
    tiles: tuple[Tile, ...] = ()
    data: Any = None
    label: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        kicker: what kind of page it is, above the title.
        tags: a few words each, below the title.
        footer: how the page was made.
    """

    title: str
    kicker: str
    sections: tuple[Section, ...]
    subtitle: str = ""
    tags: tuple[str, ...] = ()
    footer: str = ""

    @property
    def tiles(self) -> Sequence[Tile]:
        """Those of all sections, in their order."""
        return [tile for section in self.sections for tile in section.tiles]
