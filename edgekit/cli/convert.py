"""Convert a checkpoint's attention to a factorised one with a smaller cache."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgekit.checkpoint import Checkpoint

#: Names are repeated here, so that --help imports no torch; a test compares them with the files.
STRUCTURES = ("auto", "exact", "head", "spectral", "latent")
VALUE_STRUCTURES = ("exact", "head", "latent")


@click.command()
@click.argument("checkpoint")
@click.option(
    "-o", "--output", "destination", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Directory."
)
@click.option("--attention", type=click.Choice(["tpa"]), default="tpa", show_default=True, help="Target.")
@click.option(
    "--structure",
    type=click.Choice(STRUCTURES),
    default="auto",
    show_default=True,
    help="Of the keys. exact: the same cache; head: fewer mixed heads; spectral: fewer rotary pairs, nothing is "
    "rebuilt when keys are read; latent: the smallest, keys are rebuilt when they are read; auto: spectral or latent "
    "by measured loss and read cost.",
)
@click.option(
    "--value-structure",
    type=click.Choice(VALUE_STRUCTURES),
    help="Of the values.  [default: exact with exact, head with head, else latent]",
)
@click.option("--cache-ratio", type=float, metavar="X", help="Bytes of the cache over those of the original, e.g. 0.5.")
@click.option("--kv-rank", type=int, metavar="R", help="Components of keys and values in every layer, not a ratio.")
@click.option(
    "--calib",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Calibration text, UTF-8.  [default: the text that edgekit carries]",
)
@click.option("--calibration-sequences", "sequences", type=click.IntRange(min=2), default=40, show_default=True)
@click.option("--calibration-length", "length", type=click.IntRange(min=8), default=512, show_default=True)
@click.option(
    "--layout",
    type=click.Choice(["edgekit", "training"]),
    default="edgekit",
    show_default=True,
    help="training: write a T6 as it is, in the layout of its published training code, and convert nothing.",
)
@click.option("--overwrite", is_flag=True, help="Replace the converted model that is there.")
@click.option("--dry-run", is_flag=True, help="Print the estimate and stop.")
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the checkpoint is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    checkpoint: str,
    destination: Path,
    attention: str,
    layout: str,
    calib: Path | None,
    overwrite: bool,
    dry_run: bool,
    offline: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Convert a checkpoint's attention to factors with a smaller cache.

    CHECKPOINT is a Llama, Mistral or Qwen2: a GGUF file, a Hugging Face directory, a known name, or OWNER/NAME. The
    result is a Hugging Face style directory that every other verb takes; its numbers are in conversion.json. A reduced
    model should then be healed: edgekit heal.
    """
    from edgekit.checkpoint import open_checkpoint
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.cli.export_report import require_space
    from edgekit.cli.torch_needed import require_torch

    require_torch("converting a model")
    from edgekit.compress.attention.convert import ConvertOptions, convert, estimate

    opened = open_checkpoint(checkpoint, offline=offline)
    if layout == "training":
        _write_training_layout(opened, destination, overwrite)
        return
    options = ConvertOptions(**choices)
    expected = estimate(opened, options)
    click.echo(
        f"{destination}: about {expected['bytes_on_disk'] / 1e6:,.0f} MB on disk, "
        f"{expected['peak_memory'] / 1e9:,.1f} GB of memory, {expected['cache_bytes_before']:,} -> "
        f"{expected['cache_bytes_after']:,} cache bytes per token (float16), "
        f"{expected['calibration_tokens']:,} calibration tokens",
        err=not dry_run,
    )
    require_space(expected["bytes_on_disk"], destination)
    if dry_run:
        return
    with displayed_progress() as progress:
        text = None if calib is None else text_of(calib)
        record = convert(opened, destination, options, text=text, overwrite=overwrite, progress=progress)
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return
    cache = record["cache_bytes_per_token_float16"]
    click.echo(f"wrote {destination}")
    click.echo(
        f"cache  {cache['before']:,} -> {cache['after']:,} bytes per token in float16 ({record['cache_ratio']:.1%})"
    )
    click.echo(f"keys   {record['chosen']}")
    for name, nats in record["divergence_on_held_out_text"].items():
        click.echo(f"       {name}: {nats:.4f} nats per token from the original, on held-out text")
    click.echo(
        f"next: edgekit export {shlex.quote(str(destination))} -o BUNDLE --dtype int8"
        if options.exact
        else f"next: edgekit heal {shlex.quote(str(destination))} --teacher {shlex.quote(checkpoint)} -o HEALED"
    )


def _write_training_layout(checkpoint: Checkpoint, destination: Path, overwrite: bool) -> None:
    from edgekit.checkpoint.t6_training import write_t6_training_directory
    from edgekit.compress.attention.write import new_directory
    from edgekit.errors import ModelError

    if checkpoint.config.get("model_type") != "t6":
        raise ModelError(
            "Only a T6 has the layout of T6's training code.",
            f"{checkpoint.path} is a {checkpoint.config.get('model_type')}.",
            "Leave --layout out.",
        )
    weights = {name: checkpoint.array(name) for name in checkpoint.names()}
    with new_directory(destination, overwrite=overwrite) as folder:
        write_t6_training_directory(folder, checkpoint.config, weights)
        for name, contents in checkpoint.tokenizer_files().items():
            (folder / name).write_bytes(contents)
    click.echo(f"wrote {destination}: config.json, pytorch_model.bin and the tokenizer")


def text_of(path: Path) -> str:
    """A UTF-8 file. Raises EdgekitError for others."""
    from edgekit.errors import EdgekitError

    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise EdgekitError(
            "the text must be UTF-8", f"byte {error.start} of {path} is not", "convert it to UTF-8"
        ) from error
