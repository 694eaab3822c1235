"""A page as one HTML file that needs nothing else: style, plots and text are all in it, and no script."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgekit import __version__
from edgekit.errors import EdgekitError
from edgekit.report.blocks import Figure, Page, Section

TEMPLATES = Path(__file__).parent / "templates"
#: Marks what edgekit made, so that nothing else is overwritten.
GENERATOR = "edgekit"
#: Widths that each plot is drawn for; the style sheet shows the one that fits.
WIDE, NARROW = 840, 320
#: Each state in a word, beside its colour.
STATES = {"ok": "", "stale": "stale", "missing": "not measured", "failed": "failed"}
#: Control characters and halves of pairs: XML has none of them, and files cannot hold the latter.
_NO_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def html_of(page: Page) -> str:
    """The page as HTML, which is well-formed XML too. Every text is escaped; what is no character is shown as "�"."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    html = environment.get_template("page.html").render(
        page=page,
        style=Markup(style),
        generator=f"{GENERATOR} {__version__}",
        drawings=_drawings,
        states=STATES,
    )
    return _NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", html)


def _drawings(section: Section, block: Figure) -> dict[str, Markup]:
    """The plot at each width, under the class that shows it."""
    name = f"{section.name}-{section.blocks.index(block)}"
    return {
        "wide": block.plot.svg(WIDE, f"{name}-wide"),
        "narrow": block.plot.svg(NARROW, f"{name}-narrow"),
    }


def check_destination(output: Path) -> None:
    """EdgekitError unless a page may be written there."""
    if output.is_dir():
        raise EdgekitError("a page is a file", f"{output} is a directory", "name a file in it")
    if not output.parent.is_dir():
        raise EdgekitError("a page is written to a directory that is there", f"{output.parent} is none", "make it")
    if output.exists() and not is_page(output):
        raise EdgekitError(
            "only a page that edgekit made is replaced", f"{output} is something else", "choose another place"
        )


def is_page(path: Path) -> bool:
    """Whether edgekit made the file: its head says so."""
    with path.open("rb") as file:
        return f'<meta name="generator" content="{GENERATOR} '.encode() in file.read(2000)
