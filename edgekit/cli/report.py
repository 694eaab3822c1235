"""Make one HTML page that tells everything about a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.errors import EdgekitError

DEFAULT_OUTPUT = "report.html"


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"The page.  [default: {DEFAULT_OUTPUT}; none with --json]",
)
@click.option("--run", "run_missing", is_flag=True, help="First measure what is missing or stale: parity, eval, bench.")
@click.option(
    "--kit-result",
    "kit_results",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What a device kit wrote on its device. May be given several times.",
)
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@click.option("--offline", is_flag=True, help="With --run: fetch nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print what the page shows as JSON.")
def command(
    bundle: Path,
    output: Path | None,
    run_missing: bool,
    kit_results: tuple[Path, ...],
    show: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Make one HTML page that tells everything about a bundle: where it comes from, parity, perplexity, size, speed.

    The page holds what edgekit parity, eval and bench have kept in the bundle, and says what was not measured and by
    which command it can be. It is one file without scripts that needs no network.
    """
    from edgekit.bundle import read_bundle, require_kind
    from edgekit.report.collect import document_of, page_of
    from edgekit.report.kit_result import read_kit_results
    from edgekit.report.source import Source

    if show and as_json and output is None:
        raise click.UsageError("--open shows a page, and --json writes none: add -o FILE.")
    opened = read_bundle(bundle)
    require_kind(opened, "decoder", "a report")
    if output is None and not as_json:
        output = Path(DEFAULT_OUTPUT)
    if output is not None:
        _check_output(output, opened)
    kits = read_kit_results(kit_results)
    failures: list[EdgekitError] = []
    if run_missing:
        from edgekit.cli.report_run import run_what_is_missing

        failures = run_what_is_missing(opened, offline=offline)
    source = Source.of(opened, kits)
    page = page_of(source)
    if output is not None:
        from edgekit.files import atomic_write
        from edgekit.report.page import html_of

        atomic_write(output, html_of(page))
    if as_json:
        click.echo(json.dumps(document_of(source, page), indent=2, ensure_ascii=False))
    elif output is not None:
        for section in page.sections:
            if section.state != "ok":
                click.echo(f"{section.title}: {_WORDS[section.state]}")
        click.echo(f"{output}: {output.stat().st_size / 1e3:,.0f} kB")
    if show and output is not None:
        click.launch(output.absolute().as_uri())
    if failures:  # the page tells what there is, and the exit code that something is amiss
        raise failures[0]


_WORDS = {
    "missing": "not measured (--run measures it)",
    "stale": "stale: measured with another state of the bundle (--run measures it again)",
    "failed": "FAILED",
}


def _check_output(output: Path, bundle: Bundle) -> None:
    """EdgekitError unless a page may be written there."""
    from edgekit.errors import EdgekitError
    from edgekit.report.page import check_destination

    if output.resolve().is_relative_to(bundle.path.resolve()):
        raise EdgekitError(
            "a bundle holds nothing but what its manifest lists",
            f"{output} would be inside {bundle.path}",
            "choose another place with -o",
        )
    check_destination(output)
