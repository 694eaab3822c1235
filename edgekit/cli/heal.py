"""Train what a conversion or a compression changed against the original, for minutes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from edgekit.words import counted

#: By how much smaller steps are advised where healing did harm.
SMALLER = 5


@click.command()
@click.argument("checkpoint", metavar="CHANGED")
@click.option("--teacher", metavar="CHECKPOINT", required=True, help="The model that it was made from.")
@click.option(
    "-o", "--output", "destination", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Directory."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=20,
    show_default=True,
    help="Of distillation end to end; 0 for only the fits of a converted model's layers, which come first.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Of distillation of a compressed model, in the place of --minutes; repeatable to the last bit.",
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
    type=click.Choice(["q_proj", "o_proj", "scales", "codes", "norms"]),
    multiple=True,
    help="Train more. Converted: these projections of the original, which then cannot keep the integers they were "
    "stored in. Compressed: the scales of codes, the codes themselves, and norms.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=2, show_default=True, help="Passages of a step of distillation."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Step of distillation, relative to the size of what is trained.  [default: 5e-4 of a converted model, 1e-2 of "
    "a compressed one, whose codes must move by whole numbers]",
)
@click.option(
    "--compute",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Operands of products in distillation; bfloat16 is faster on processors that have it (edgekit doctor).",
)
@click.option(
    "--device",
    metavar="DEVICE",
    default="cpu",
    show_default=True,
    help="Of PyTorch, to distil a compressed model on: cpu, cuda, cuda:1, …",
)
@click.option("--resume", is_flag=True, help="Go on with a healing that was cut off.")
@click.option("--overwrite", is_flag=True, help="Replace the converted model that is there.")
@click.option("--dry-run", is_flag=True, help="Print the estimate, by the time of a few steps, and stop.")
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the teacher is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    checkpoint: str,
    teacher: str,
    destination: Path,
    minutes: float,
    steps: int | None,
    text_path: Path | None,
    sequences: int,
    length: int,
    epochs: float,
    also: tuple[str, ...],
    batch: int,
    rate: float | None,
    compute: str,
    device: str,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Train what a conversion or a compression changed against the original, for minutes.

    CHANGED is a directory that `edgekit convert` or `edgekit compress` wrote. Of a converted model, first each layer is
    fitted to the original's attention, then the whole is distilled. Of a compressed one, factors and single weights are
    distilled, with --also scales, codes and norms; positions stay, and no byte is added. What is done is kept beside
    the output: after an interruption, --resume goes on from it. The loss curves come beside the output, too: OUT.png,
    OUT.history.json.
    """
    from edgekit.checkpoint import open_checkpoint
    from edgekit.cli.convert import text_of
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.cli.export_report import require_space
    from edgekit.cli.torch_needed import require_torch

    require_torch("healing a model")
    from edgekit.checkpoint.compressed import CompressedCheckpoint
    from edgekit.heal.compressed import COMPRESSED_RATE, heal_compressed
    from edgekit.heal.estimate import HealEstimate
    from edgekit.heal.heal import heal
    from edgekit.heal.options import HealOptions

    student, source = open_checkpoint(checkpoint, offline=True), open_checkpoint(teacher, offline=offline)
    rate = rate or (COMPRESSED_RATE if isinstance(student, CompressedCheckpoint) else HealOptions.rate)
    options = HealOptions(minutes, sequences, length, epochs, also, batch, rate, compute, steps, device)
    with displayed_progress() as progress:

        def estimated(estimate: HealEstimate) -> None:
            progress.note(estimate.line())
            require_space(estimate.work_bytes, destination)

        given: Any = {
            "text": None if text_path is None else text_of(text_path),
            "resume": resume,
            "overwrite": overwrite,
            "dry_run": dry_run,
            "estimated": estimated,
            "progress": progress,
        }
        if isinstance(student, CompressedCheckpoint):
            record = heal_compressed(student, source, destination, options, **given)
        else:
            record = heal(student, source, destination, options, **given)
    if dry_run:
        found = {"destination": str(destination), "estimate": record}
        click.echo(json.dumps(found, indent=2) if as_json else HealEstimate(**record).line())
        return
    picture = _drawn(destination)
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return
    click.echo(f"wrote {destination}")
    if "held_out" in record:
        held, kept = record["held_out"], "" if record["kept"] else ", so that the checkpoint was kept as it was"
        click.echo(f"distil  {counted(record['steps'], 'steps')} in {record['seconds'] / 60:.1f} minutes")
        click.echo(f"loss of passages not trained on  {held['before']:.5f} -> {held['after']:.5f}{kept}")
        click.echo(f"curves  {picture}")
        if not record["kept"]:
            rate = record["options"]["rate"]
            click.echo(
                f"next: heal with smaller steps, --rate {rate / SMALLER:g} (these had {rate:g}), or with more text"
            )
            return
        click.echo(f"next: edgekit export {shlex.quote(str(destination))} -o BUNDLE --dtype int8")
        return
    if record["layers"]:
        mean = {when: sum(e[when] for e in record["layers"]) / len(record["layers"]) for when in ("before", "after")}
        click.echo(
            f"layers  error² of the attention's output {mean['before']:.4f} -> {mean['after']:.4f} of its energy (mean)"
        )
    if record["step"]:
        click.echo(f"distil  {counted(record['step'], 'steps')} in {record['seconds'] / 60:.1f} minutes")
    click.echo(f"curves  {picture}")
    click.echo(f"next: edgekit export {shlex.quote(str(destination))} -o BUNDLE --dtype int8")


def _drawn(destination: Path) -> str:
    """Draw the loss curves; where they are, or why there are none."""
    from edgekit.errors import EdgekitError
    from edgekit.heal.curves import draw

    try:
        return str(draw(destination))
    except EdgekitError as error:
        return f"not drawn: {error.fact}; {error.next_step}"
