"""Compress a checkpoint's matrices to a given size."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import click

from edgekit.words import counted

#: Names are repeated here, so that --help imports no torch; a test compares them with the files.
METHODS = ("dense", "gptq", "round", "saten", "saten-augmented", "saten-faithful", "svd", "svd-aware", "tt")


#: Options that say what a plan says already.
_OF_A_PLAN = {
    "method": "--method", "bits_per_weight": "--bits-per-weight", "ratio": "--ratio", "target_bytes": "--target-bytes",
    "target_ms": "--target-ms",
    "sparsity": "--sparsity", "factors": "--quantize-factors", "order": "--order", "base_bits": "--base-bits",
    "symmetric": "--symmetric", "rounds": "--rounds", "allocate": "--allocate or --uniform",
    "sequences": "--calibration-sequences", "length": "--calibration-length", "minutes": "--budget-minutes",
}  # fmt: skip


@click.command()
@click.argument("checkpoint")
@click.option(
    "-o", "--output", "destination", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Directory."
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="saten-augmented",
    show_default=True,
    help="saten-augmented: codes of few bits, corrected by low rank and single weights. saten: low rank and single "
    "weights, quantised, where activations notice. saten-faithful: as published. svd, svd-aware, tt: low rank, tensor "
    "train. dense: codes alone; gptq: the same, as published; round: to the nearest.",
)
@click.option("--bits-per-weight", type=float, metavar="B", help="Of the layers' matrices, everything counted.")
@click.option("--ratio", type=float, metavar="X", help="Of all weights, to the same in float16: 0.25 for a quarter.")
@click.option("--target-bytes", type=int, metavar="N", help="Of all weights.")
@click.option(
    "--target-ms",
    type=float,
    metavar="T",
    help="Instead of a size: what a token's products with the matrices may take on one thread, by the cost model that "
    "edgekit inspect shows.",
)
@click.option(
    "--sparsity",
    metavar="PATTERN",
    help="Of the sparse part: unstructured:95%, 2:4 (or N:M along the inputs), row:90%, block:4x16:90%, none; shares "
    "are of zeros.  [default: what serves best]",
)
@click.option(
    "--quantize-factors",
    "factors",
    type=click.Choice(["int4", "int8", "float16"]),
    help="Type of the factors.  [default: int4 for saten and saten-augmented, else float16]",
)
@click.option("--order", type=click.IntRange(2, 6), help="Of tensor trains; 2 is low rank.  [default: 4 for tt]")
@click.option("--base-bits", multiple=True, type=click.Choice(["2", "3", "4", "8"]), help="Codes that may be used.")
@click.option("--symmetric", is_flag=True, help="Codes without zero points, in the blocks that TensorRT takes.")
@click.option(
    "--embeddings",
    type=click.Choice(["keep", "int8"]),
    default="keep",
    show_default=True,
    help="int8: round tables of embeddings, and heads, to 8 bits.",
)
@click.option(
    "--format",
    "layout",
    type=click.Choice(["edgekit", "tm_params"]),
    default="edgekit",
    show_default=True,
    help="tm_params: the layout of Saten's training code, with dense residuals in float32.",
)
@click.option("--rounds", type=click.IntRange(1, 16), default=4, show_default=True, help="Of alternating fits.")
@click.option("--keep", multiple=True, metavar="PATTERN", help="Matrices to leave as they are; may be repeated.")
@click.option(
    "--allocate/--uniform",
    default=True,
    show_default=True,
    help="Share bytes among matrices by what bits were measured to be worth, or give all the same bits per weight.",
)
@click.option(
    "--calib",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Calibration text, UTF-8.  [default: the text that edgekit carries]",
)
@click.option("--calibration-sequences", "sequences", type=click.IntRange(min=2), default=256, show_default=True)
@click.option("--calibration-length", "length", type=click.IntRange(min=8), default=128, show_default=True)
@click.option(
    "--budget-minutes",
    "minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Fewer rounds, so that it is expected to end in time.",
)
@click.option("--plan-only", is_flag=True, help="Write the plan to the file named by -o, fit nothing.")
@click.option("--plan", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Apply this plan.")
@click.option("--workers", type=click.IntRange(min=1), help="Layers at one time.  [default: the processor's cores]")
@click.option("--scheduler", metavar="ADDRESS", help="Fit on this Dask cluster, such as tcp://host:8786.")
@click.option("--resume", is_flag=True, help="Go on with a run that was cut off.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@click.option("--dry-run", is_flag=True, help="Print the estimate and stop.")
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the checkpoint is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    checkpoint: str,
    destination: Path,
    calib: Path | None,
    plan: Path | None,
    plan_only: bool,
    scheduler: str | None,
    workers: int | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    offline: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Compress a checkpoint's matrices to a given size, layer by layer.

    CHECKPOINT is a GGUF file, a Hugging Face directory, a known name, or OWNER/NAME: a decoder or an encoder. The
    result is a Hugging Face style directory that every other verb takes; `edgekit inspect DIR` shows its matrices. What
    is done is kept beside it until the end, so that a run that was cut off, whatever by, goes on with --resume.
    """
    if plan is not None and plan_only:
        raise click.UsageError("--plan and --plan-only exclude each other.")
    if plan is not None:
        _refuse_what_a_plan_says()
    from edgekit.checkpoint import open_checkpoint
    from edgekit.cli.convert import text_of
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.cli.export_report import require_space
    from edgekit.cli.interruptible import interruptible
    from edgekit.cli.torch_needed import require_torch

    require_torch("compressing a model")
    from edgekit.compress.layerwise.compress import asked_plan, check_free, checked, compress
    from edgekit.compress.layerwise.estimate import estimate
    from edgekit.compress.layerwise.execute import on_cluster
    from edgekit.compress.layerwise.options import CompressOptions
    from edgekit.heal.trainable import ALSO

    given: dict[str, Any] = {
        name: tuple(map(int, value)) if name == "base_bits" else value for name, value in choices.items()
    }
    if plan is not None:
        given |= _size_of_plan(plan)
    text = None if calib is None else text_of(calib)
    if not dry_run:
        check_free(destination, plan_only=plan_only, overwrite=overwrite)
    opened = open_checkpoint(checkpoint, offline=offline)
    options = CompressOptions(**given, workers=workers or os.cpu_count() or 1)
    sizes = checked(opened, options)
    expected = estimate(opened, options, sizes, asked_plan(options, sizes, plan))
    if dry_run and as_json:
        click.echo(json.dumps({"destination": str(destination), "estimate": vars(expected)}, indent=2))
        return
    click.echo(
        f"{destination}: about {expected.weight_bytes / 1e6:,.0f} MB, {expected.work_bytes / 1e6:,.0f} MB on disk "
        f"while working, {expected.memory_bytes / 1e9:,.1f} GB of memory, {expected.seconds / 60:,.0f} minutes",
        err=not dry_run,
    )
    require_space(expected.work_bytes, destination)
    if dry_run:
        return
    with displayed_progress() as progress, interruptible() as stopped:
        record = compress(
            opened,
            destination,
            options,
            text=text,
            plan=plan,
            plan_only=plan_only,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
            stopped=stopped,
            execute=None if scheduler is None else on_cluster(scheduler),
        )
    if record is None:
        click.echo("stopped: go on with the same command and --resume", err=True)
        raise click.Abort
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return
    if plan_only:
        click.echo(f"wrote {destination}: {counted(record['matrices'], 'matrices')}, {record['bytes']:,} bytes at most")
        if record["slower_than_int4"] is not None:
            click.echo(
                f"slower than int4: about {record['slower_than_int4']} of {counted(record['matrices'], 'matrices')}; "
                f"{record['expected_us']:,.0f} us per token for all, int4 {record['int4_us']:,.0f} (model of one CPU "
                "thread)"
            )
        click.echo(f"next: edgekit compress {shlex.quote(checkpoint)} -o DIR --plan {shlex.quote(str(destination))}")
        return
    click.echo(f"wrote {destination}")
    click.echo(
        f"matrices  {record['matrices']}, {record['matrix_bytes'] / 1e6:,.1f} MB, {record['bits_per_weight']:.3f} bits "
        f"per weight\nweights   {record['weights_bytes'] / 1e6:,.1f} MB, {record['ratio_to_float16']:.1%} of float16"
    )
    if choices["layout"] == "tm_params":
        click.echo("sizes     of what is counted; tm_params.pth itself holds residuals as dense matrices in float32")
        return
    made = shlex.quote(str(destination))
    click.echo(
        f"next: edgekit inspect {made}, or edgekit export it with --dtype int8; nearer to the original, in the same"
    )
    also = " ".join(f"--also {part}" for part in ALSO)
    click.echo(f"      bytes, comes edgekit heal {made} --teacher {shlex.quote(checkpoint)} -o HEALED {also}")


def _refuse_what_a_plan_says() -> None:
    """Options that a plan would overrule are refused, not ignored."""
    current = click.get_current_context()
    for name, option in _OF_A_PLAN.items():
        if current.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(
                f"{option} has no effect with --plan: the plan says so of each matrix; edit it there."
            )


def _size_of_plan(plan: Path) -> dict[str, Any]:
    """What the options' size is where a plan says it."""
    try:
        about = json.loads(plan.read_text(encoding="utf-8")).get("about", {})
        return {"bits_per_weight": float(about.get("bits_per_weight", 4.0)), "allocate": False}
    except (ValueError, AttributeError, TypeError):
        return {"bits_per_weight": 4.0, "allocate": False}
