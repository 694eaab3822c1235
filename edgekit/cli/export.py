"""Make a bundle from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

DTYPES = ("fp32", "fp16", "int8", "int4")


@click.command()
@click.argument("checkpoint")
@click.option(
    "-o", "--output", "destination", metavar="BUNDLE", required=True, type=click.Path(path_type=Path), help="Directory."
)
@click.option("--dtype", type=click.Choice(DTYPES), required=True, help="Type of the weights.")
@click.option(
    "--form",
    type=click.Choice(["ort", "portable", "tensorrt", "jetpack6"]),
    default="ort",
    show_default=True,
    help="ort: fused for ONNX Runtime. portable: standard ONNX operators, and functions made of them for factorised "
    "attention. tensorrt: for TensorRT 10.15 or newer, caches of factors in place. jetpack6: for TensorRT 10.3, custom "
    "operators as plugins only.",
)
@click.option(
    "--max-context",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Longest context the bundle serves.  [default: the model's own, at most 8192]",
)
@click.option(
    "--block-size",
    type=click.Choice(["16", "32", "64", "128"]),
    help="Weights along a row that share a scale (int8, int4).  [default: 32; for TensorRT 64, int4 only]",
)
@click.option(
    "--allowed-cost",
    type=click.FloatRange(min=0),
    metavar="NATS",
    help="Expected increase of the loss per token that 4 bits may cost; what costs more stays at 8 bits (int4).  "
    "[default: 0.012]",
)
@click.option(
    "--keep-8bit",
    multiple=True,
    metavar="PATTERN",
    help="Keep these at 8 bits in any case, e.g. '*.down_proj'; may be given more than once (int4).  "
    "[default: lm_head]",
)
@click.option(
    "--carry-over/--no-carry-over",
    default=None,
    help="Take the checkpoint's own integers where the target holds them exactly: Q8_0, Q4_0, and in the ort form Q4_1 "
    "(int8, int4).  [default: yes]",
)
@click.option(
    "--calibration-sequences",
    type=click.IntRange(min=1),
    metavar="N",
    help="Passages of the calibration text (int4).  [default: 32]",
)
@click.option(
    "--calibration-length",
    type=click.IntRange(min=2),
    metavar="TOKENS",
    help="Tokens of each passage (int4).  [default: 128]",
)
@click.option(
    "--draft",
    type=click.Path(exists=True, dir_okay=False),
    metavar="HEADS",
    help="Draft heads of this checkpoint, which edgekit draft train wrote: the bundle gets a second model that drafts.",
)
@click.option(
    "--draft-components",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many components of the heads' mixture a draft computes (--draft).  [default: 2, or all there are]",
)
@click.option(
    "--draft-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many tokens a draft has at most (--draft).  [default: as many as the heads speak of]",
)
@click.option(
    "--base",
    type=click.Choice(["auto", "operator", "products"]),
    help="What multiplies by a compressed checkpoint's codes of few bits (not portable): operator: edgekit's, from the "
    "stored bytes, in TensorRT a plugin; products: MatMulNBits or TensorRT's own, without edgekit's library.  "
    "[default: auto, what a cost model expects to be faster, or in TensorRT a plugin for what it does not read]",
)
@click.option("--name", metavar="TEXT", help="The model's name in the manifest.  [default: from the checkpoint]")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is there.")
@click.option("--dry-run", is_flag=True, help="Print the estimate and stop.")
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the checkpoint is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    checkpoint: str,
    destination: Path,
    overwrite: bool,
    dry_run: bool,
    offline: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Make a bundle from a checkpoint: trace, quantise, rewrite, write.

    CHECKPOINT is a GGUF file, a Hugging Face directory, a known name, or OWNER/NAME. The bundle appears at its place
    as a whole, when everything is written.
    """
    given = {name: value for name, value in choices.items() if value not in (None, ())}
    _refuse_idle(given)
    for option in ("draft_components", "draft_tokens"):
        if option in given and "draft" not in given:
            raise click.UsageError(f"--{option.replace('_', '-')} has no effect without --draft.")
    from edgekit.bundle import read_bundle
    from edgekit.checkpoint import open_checkpoint
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.cli.export_report import estimate_facts, estimate_line, require_space, summary_lines
    from edgekit.cli.torch_needed import require_torch

    require_torch("exporting a model")
    from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint, estimate

    opened = open_checkpoint(checkpoint, offline=offline)
    if "block_size" in given:
        given["block_size"] = int(given["block_size"])
    options = ExportOptions(**given)
    expected = estimate(opened, options)
    if dry_run and as_json:
        click.echo(json.dumps({"destination": str(destination), "estimate": estimate_facts(expected)}, indent=2))
    else:
        click.echo(estimate_line(expected, destination), err=not dry_run)
    require_space(expected.bytes_on_disk, destination)
    if dry_run:
        return
    with displayed_progress() as progress:
        path = bundle_from_checkpoint(opened, destination, options, overwrite=overwrite, progress=progress)
    manifest = dict(read_bundle(path, verify="size").manifest.raw)
    if as_json:
        click.echo(json.dumps({"bundle": str(path), "estimate": estimate_facts(expected), **manifest}, indent=2))
        return
    for line in summary_lines(path, manifest):
        click.echo(line)
    use = "chat" if manifest.get("kind", "decoder") == "decoder" else "embed"
    click.echo(f"next: edgekit parity {path}, or edgekit {use} {path}")


def _refuse_idle(given: dict[str, Any]) -> None:
    from edgekit.export.idle_options import idle_options

    dtype, form = given["dtype"], given["form"]
    idle = idle_options(dtype, given, form)
    if idle:
        which = f"--dtype {dtype}" if idle_options(dtype, given) else f"--dtype {dtype} --form {form}"
        raise click.UsageError(f"--{idle[0].replace('_', '-')} has no effect with {which}.")
