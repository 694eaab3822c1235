"""Where `edgekit compare -o` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgekit.compare.run import Comparison

PAGE, PLOT = ".html", ".png"


def check_outputs(outputs: Sequence[Path]) -> None:
    """Refuse before anything is measured what could not be written after it.

    Raises:
        click.UsageError: a name ends otherwise than in .html or .png.
        EdgekitError: the place is none to write to, or holds what edgekit has not made.
    """
    for output in outputs:
        if output.suffix.lower() not in (PAGE, PLOT):
            raise click.UsageError(f"-o {output}: write a page ({PAGE}) or a plot ({PLOT}).")
        if output.suffix.lower() == PAGE:
            from edgekit.report.page import check_destination

            check_destination(output)
        else:
            _check_plot(output)


def _check_plot(output: Path) -> None:
    from edgekit.compare.plot import SOFTWARE, require_matplotlib
    from edgekit.errors import EdgekitError

    require_matplotlib()
    if not output.parent.is_dir():
        raise EdgekitError("a plot is written to a directory that is there", f"{output.parent} is none", "make it")
    if output.exists() and not (output.is_file() and SOFTWARE.encode() in output.read_bytes()[:2000]):
        raise EdgekitError(
            "only a plot that edgekit made is replaced", f"{output} is something else", "choose another place"
        )


def write_outputs(found: Comparison, outputs: Sequence[Path]) -> None:
    """Write them as wholes."""
    from edgekit.files import atomic_write

    for output in outputs:
        if output.suffix.lower() == PAGE:
            from edgekit.compare.page import page_of
            from edgekit.report.page import html_of

            atomic_write(output, html_of(page_of(found)))
        else:
            from edgekit.compare.plot import png_of

            atomic_write(output, png_of(found))
