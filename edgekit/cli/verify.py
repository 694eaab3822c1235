"""Check every file of a bundle."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.words import counted

if TYPE_CHECKING:
    from edgekit.bundle import Bundle, FileCheck


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(bundle: Path, as_json: bool) -> None:
    """Check every file of a bundle against its manifest.

    Sizes and SHA-256 are compared, and files that the manifest does not list are reported. Exits with 5 when anything
    differs.
    """
    from edgekit.bundle.read import describe, mended_by, read_manifest
    from edgekit.errors import BundleError

    opened = read_manifest(bundle)
    checks = _check(opened)
    bad = [check for check in checks if not check.ok]
    if as_json:
        files = [asdict(check) for check in checks]
        click.echo(json.dumps({"bundle": str(bundle), "ok": not bad, "files": files}, indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            size = f"{check.found_bytes:,}" if check.found_bytes is not None else "-"
            click.echo(f"{check.name:<{width}}  {size:>15}  " + ("ok" if check.ok else describe(check)))
    if bad:
        names = ", ".join(check.name for check in bad)
        raise BundleError(
            "a bundle's files must be as its manifest says",
            f"{len(bad)} of {counted(len(checks), 'files')} of {bundle} differ: {names}",
            f"remove files that are not listed; for others {mended_by(opened, bad[0].name)}",
        )
    if not as_json:
        click.echo(
            f"{bundle}: {counted(len(checks), 'files')}, {opened.manifest.bytes:,} bytes, all as the manifest says"
        )


def _check(bundle: Bundle) -> list[FileCheck]:
    """Hash every file, with a progress bar when a person is watching."""
    from edgekit.bundle import check_files

    if not sys.stderr.isatty():
        return list(check_files(bundle, full=True))
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("hashing"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task("hashing", total=bundle.manifest.bytes)
        return list(check_files(bundle, full=True, progress=lambda count: display.advance(task, count)))
