"""Train what a conversion changed against the original, for minutes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click


@click.command()
@click.argument("converted")
@click.option("--teacher", metavar="CHECKPOINT", required=True, help="The model that it was converted from.")
@click.option(
    "-o", "--output", "destination", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Directory."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=20,
    show_default=True,
    help="Of distillation end to end, after each layer is fitted by itself. 0 for the fits alone.",
)
@click.option(
    "--text",
    "text_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Text to train on, UTF-8: the more varied, the better.  [default: the text that edgekit carries]",
)
@click.option("--sequences", type=click.IntRange(min=1), default=64, show_default=True, help="Passages of the text.")
@click.option("--length", type=click.IntRange(min=8), default=384, show_default=True, help="Tokens of each.")
@click.option("--epochs", type=click.FloatRange(min=0), default=2, show_default=True, help="Of the fits.")
@click.option(
    "--also",
    type=click.Choice(["q_proj", "o_proj"]),
    multiple=True,
    help="Train these projections of the original too; they then cannot keep the integers they were stored in.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=2, show_default=True, help="Passages of a step of distillation."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=5e-4,
    show_default=True,
    help="Step of distillation, relative to the size of what is trained.",
)
@click.option(
    "--compute",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Operands of products in distillation; bfloat16 is faster on processors that have it (edgekit doctor).",
)
@click.option("--resume", is_flag=True, help="Go on with a healing that was cut off.")
@click.option("--overwrite", is_flag=True, help="Replace the converted model that is there.")
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the teacher is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    converted: str,
    teacher: str,
    destination: Path,
    minutes: float,
    text_path: Path | None,
    sequences: int,
    length: int,
    epochs: float,
    also: tuple[str, ...],
    batch: int,
    rate: float,
    compute: str,
    resume: bool,
    overwrite: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Train what a conversion changed against the original, for minutes.

    CONVERTED is a directory that `edgekit convert` wrote. First each layer is fitted to the original's attention, then
    the whole is distilled. What is done is kept beside the output: after an interruption, --resume goes on from it.
    """
    from edgekit.checkpoint import open_checkpoint
    from edgekit.cli.convert import text_of
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.cli.torch_needed import require_torch

    require_torch("healing a model")
    from edgekit.heal.heal import HealOptions, heal

    student, source = open_checkpoint(converted, offline=True), open_checkpoint(teacher, offline=offline)
    options = HealOptions(minutes, sequences, length, epochs, also, batch, rate, compute)
    with displayed_progress() as progress:
        record = heal(
            student,
            source,
            destination,
            options,
            text=None if text_path is None else text_of(text_path),
            resume=resume,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return
    click.echo(f"wrote {destination}")
    if record["layers"]:
        mean = {when: sum(e[when] for e in record["layers"]) / len(record["layers"]) for when in ("before", "after")}
        click.echo(
            f"layers  error² of the attention's output {mean['before']:.4f} -> {mean['after']:.4f} of its energy (mean)"
        )
    if record["step"]:
        click.echo(f"distil  {record['step']:,} steps in {record['seconds'] / 60:.1f} minutes")
    click.echo(f"next: edgekit export {shlex.quote(str(destination))} -o BUNDLE --dtype int8")
