"""Make a bundle from a recipe."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.checkpoint import Checkpoint
    from edgekit.progress import Progress
    from edgekit.recipe.make import Step
    from edgekit.recipe.recipe import Recipe


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "destination",
    metavar="BUNDLE",
    type=click.Path(path_type=Path),
    help="Directory.  [default: bundles/ and the recipe's name]",
)
@click.option("--force", type=click.Choice(["export", "parity"]), help="Do this step though nothing changed.")
@click.option("--update-fingerprint", is_flag=True, help="Write the golden fingerprint instead of comparing with it.")
@click.option("--dry-run", is_flag=True, help="Tell which steps would run, and stop.")
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the checkpoint is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    recipe: Path,
    destination: Path | None,
    force: str | None,
    update_fingerprint: bool,
    dry_run: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Make a bundle from a recipe: pull, export, fingerprint, parity, bundle.

    A step is skipped where nothing it depends on has changed; a run that was cut short is continued. The bundle
    appears at its place when it has passed its comparison with PyTorch.
    """
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.cli.torch_needed import require_torch
    from edgekit.recipe.recipe import read_recipe

    read = read_recipe(recipe)
    require_torch("making a bundle")
    from edgekit.recipe.make import make, plan

    if destination is None:
        destination = Path("bundles") / read.name
    if dry_run:
        with displayed_progress() as progress:
            steps = plan(read, Path(os.path.realpath(destination)), force=force, progress=progress)
        _print(destination, steps, as_json, {}, "would run")
        return
    with displayed_progress() as progress:
        made = make(
            read,
            Path(os.path.realpath(destination)),
            export=_export,
            parity=_parity,
            progress=progress,
            offline=offline,
            force=force,
            update_fingerprint=update_fingerprint,
        )
    _print(destination, made.steps, as_json, {"parity": made.parity}, "done")
    if not as_json:
        click.echo(f"next: edgekit chat {destination}")


def _export(
    checkpoint: Checkpoint, destination: Path, recipe: Recipe, kept: dict[str, Any], progress: Progress
) -> None:
    from edgekit.cli.export_report import estimate_line, require_space
    from edgekit.export.bundle_from_checkpoint import bundle_from_checkpoint, estimate
    from edgekit.recipe.options import export_options

    options = export_options(recipe)
    expected = estimate(checkpoint, options)
    progress.note(estimate_line(expected, destination))
    require_space(expected.bytes_on_disk, destination)
    bundle_from_checkpoint(checkpoint, destination, options, overwrite=True, progress=progress, recipe=kept)


def _parity(bundle: Bundle, checkpoint: Checkpoint, recipe: Recipe, progress: Progress) -> dict[str, Any]:
    from edgekit.parity.prompts import shipped_prompts

    prompts = shipped_prompts()[: recipe.parity.prompts]
    if bundle.manifest.kind == "encoder":
        from edgekit.parity.encoder_check import encoder_parity

        return encoder_parity(bundle, checkpoint, texts=prompts, progress=progress).to_dict()
    from edgekit.parity.check import parity_of

    return parity_of(bundle, checkpoint, prompts=prompts, tokens=recipe.parity.tokens, progress=progress).to_dict()


def _print(destination: Path, steps: list[Step], as_json: bool, more: dict[str, Any], done: str) -> None:
    if as_json:
        document = {"bundle": str(destination), "steps": [asdict(step) for step in steps], **more}
        click.echo(json.dumps(document, indent=2))
        return
    for step in steps:
        status = done if step.status == "done" else "skipped"
        seconds = f"{step.seconds:6.1f} s" if step.seconds else ""
        click.echo(f"{step.name:<12} {status:<9} {seconds:>8}  {step.detail}".rstrip())
