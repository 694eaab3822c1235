"""Train draft heads, which propose several tokens at once."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import click

from edgekit.words import counted


@click.group()
def command() -> None:
    """Train draft heads, which propose several tokens at once."""


@command.command()
@click.argument("checkpoint")
@click.option(
    "-o", "--output", "destination", metavar="FILE", required=True, type=click.Path(path_type=Path),
    help="File of the heads, FILE.safetensors; its loss curve goes beside it.",
)  # fmt: skip
@click.option(
    "--tokens", type=click.IntRange(1, 16), default=4, show_default=True,
    help="Tokens that are drafted after the one that is known.",
)  # fmt: skip
@click.option(
    "--rank", type=click.IntRange(1, 64), default=8, show_default=True,
    help="Components of the mixture; 1 drafts each token by itself.",
)  # fmt: skip
@click.option(
    "--vocabulary", type=click.IntRange(16), default=8192, show_default=True,
    help="Tokens that can be drafted: the most frequent ones of the text.",
)  # fmt: skip
@click.option(
    "--window", type=click.IntRange(min=0), default=64, show_default=True, help="Earlier positions that a draft sees.",
)  # fmt: skip
@click.option(
    "--also", type=click.IntRange(1, 64), multiple=True, metavar="RANK",
    help="Grow another mixture from the same single heads, to FILE.RANK.safetensors. May be repeated.",
)  # fmt: skip
@click.option("--feature-layers", metavar="A,B,…", help="Layers that are read.  [default: a third, two thirds, all]")
@click.option(
    "--text", "text_path", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Text to train on beside conversations of the model with itself, UTF-8.",
)  # fmt: skip
@click.option(
    "--bundle", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Bundle of the model that talks with itself.  [default: one is exported as int8]",
)  # fmt: skip
@click.option(
    "--positions",
    type=click.IntRange(min=0),
    default=400_000,
    show_default=True,
    help="Tokens of conversations, rounded up to whole batches; 0 for --text alone.",
)
@click.option("--length", type=click.IntRange(128), default=512, show_default=True, help="Tokens of a conversation.")
@click.option("--epochs", type=click.FloatRange(min=0.01), default=1.0, show_default=True, help="Over the text.")
@click.option(
    "--single-epochs", type=click.FloatRange(min=0.01), default=4.0, show_default=True,
    help="Of the single heads, before each is made a mixture.",
)  # fmt: skip
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=2e-3, show_default=True, help="Of AdamW.")
@click.option(
    "--mixture-rate", type=click.FloatRange(min=0, min_open=True), default=0.25, show_default=True,
    help="Of the mixture's steps, as a share of --rate.",
)  # fmt: skip
@click.option(
    "--compute", type=click.Choice(["float32", "bfloat16"]),
    help="Operands of products.  [default: bfloat16 on a GPU and where the processor multiplies it, else float32]",
)  # fmt: skip
@click.option(
    "--device", metavar="DEVICE", default="cpu", show_default=True,
    help="Of PyTorch: cpu, cuda, cuda:1, … A GPU makes the text and the hidden states too.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="Of all work.  [default: all cores]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0), help="Stop after so long; --resume goes on from there.")
@click.option("--resume", is_flag=True, help="Go on with a training that was cut off.")
@click.option("--overwrite", is_flag=True, help="Replace the heads, or an unfinished training, that is there.")
@click.option("--dry-run", is_flag=True, help="Print the estimate and stop.")
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the checkpoint is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(checkpoint: str, destination: Path, as_json: bool, **chosen: Any) -> None:
    """Train draft heads for a frozen checkpoint.

    The model talks with itself, its hidden states are kept on disk once, single heads learn from them, and grow into a
    mixture. All is kept in .FILE.training beside the output: Ctrl-C stops, --resume goes on. Then: edgekit export
    CHECKPOINT --draft FILE.
    """
    from edgekit.checkpoint import open_checkpoint
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.cli.interruptible import interruptible
    from edgekit.cli.main import EXIT_INTERRUPTED
    from edgekit.cli.torch_needed import require_torch

    require_torch("training draft heads")
    from edgekit.draft.estimate import estimate
    from edgekit.draft.train import check_free
    from edgekit.draft.train import train as train_file
    from edgekit.draft.workplace import check_name
    from edgekit.models._device import checked_device

    check_name(destination)
    device = checked_device(chosen["device"], "heads are trained")
    source = open_checkpoint(checkpoint, offline=chosen["offline"])
    heads, text, options = _options(chosen)
    needed = estimate(source, heads, text, options, single_epochs=chosen["single_epochs"]) if device == "cpu" else None
    dry = chosen["dry_run"]
    if dry and as_json:
        said = None if needed is None else {**vars(needed), "seconds": needed.seconds}
        click.echo(json.dumps({"output": str(destination), "estimate": said}, indent=2))
        return
    unknown = "no estimate: what training takes was measured on CPUs only"
    click.echo(unknown if needed is None else needed.line(), err=not dry)
    if dry:
        return
    if not chosen["overwrite"]:
        check_free(destination, heads)
    deadline = None if chosen["minutes"] is None else time.monotonic() + 60 * chosen["minutes"]
    with interruptible() as interrupted, displayed_progress() as progress:

        def stop() -> bool:
            return interrupted() or (deadline is not None and time.monotonic() >= deadline)

        done = train_file(
            source,
            destination,
            heads,
            text,
            options,
            single_epochs=chosen["single_epochs"],
            mixture_rate=chosen["mixture_rate"],
            device=device,
            resume=chosen["resume"],
            overwrite=chosen["overwrite"],
            stop=stop,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps({"output": str(destination), "finished": done.finished, **done.record}, indent=2))
    elif done.finished:
        _report(checkpoint, destination, done.record)
    else:
        click.echo("stopped; the same command with --resume goes on")
    if interrupted():
        raise click.exceptions.Exit(EXIT_INTERRUPTED)


@command.command()
@click.argument("heads", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(heads: Path, as_json: bool) -> None:
    """Show what a file of draft heads holds."""
    from edgekit.cli.torch_needed import require_torch

    require_torch("reading draft heads")
    from edgekit.draft.head_file import read_heads

    found = read_heads(heads)
    config, parameters = found.heads.config, sum(p.numel() for p in found.heads.parameters())
    if as_json:
        click.echo(json.dumps({"config": config.to_dict(), "parameters": parameters, "record": found.record}, indent=2))
        return
    click.echo(
        f"drafts      {counted(config.tokens, 'tokens')}, {counted(config.rank, 'components')}, "
        f"{config.vocabulary:,} tokens to choose from"
    )
    seen = f"{config.window} earlier positions" if config.window else "no earlier position"
    click.echo(f"sees        {seen}")
    click.echo(f"parameters  {parameters:,}")
    click.echo(f"reads       the residual stream after layers {', '.join(map(str, config.feature_layers))}")
    _acceptance(found.record)


def _options(chosen: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Heads, text and training as the options ask for."""
    import torch

    from edgekit.cli.convert import text_of
    from edgekit.device.host import cpu
    from edgekit.draft.text import TextOptions
    from edgekit.draft.train import HeadOptions
    from edgekit.draft.trainer import TrainOptions

    layers = chosen["feature_layers"]
    try:
        chosen_layers = None if layers is None else tuple(int(part) for part in layers.split(","))
    except ValueError:
        raise click.BadParameter(f"{layers!r} is no list of numbers", param_hint="--feature-layers") from None
    if chosen["threads"] is not None:
        torch.set_num_threads(chosen["threads"])
    path = chosen["text_path"]
    return (
        HeadOptions(
            chosen["tokens"],
            chosen["rank"],
            chosen["vocabulary"],
            chosen_layers,
            window=chosen["window"],
            also=tuple(chosen["also"]),
        ),
        TextOptions(
            None if path is None else text_of(path),
            chosen["positions"],
            chosen["length"],
            chosen["bundle"],
            chosen["threads"],
            chosen["seed"],
        ),
        TrainOptions(
            epochs=chosen["epochs"],
            rate=chosen["rate"],
            seed=chosen["seed"],
            # A step on a GPU is of whole texts, eight times as much.
            measure_every=50 if chosen["device"] == "cpu" else 200,
            compute=chosen["compute"]
            or ("bfloat16" if chosen["device"] != "cpu" or cpu().multiplies_bfloat16 else "float32"),
        ),
    )


def _report(checkpoint: str, destination: Path, record: dict[str, Any]) -> None:
    from edgekit.cli.display_progress import duration
    from edgekit.draft.curves import draw
    from edgekit.errors import EdgekitError

    click.echo(f"wrote {destination} ({destination.stat().st_size / 1e6:.1f} MB) after {duration(record['seconds'])}")
    click.echo(f"coverage    the draft vocabulary holds {100 * record['text']['coverage']:.1f}% of the text's tokens")
    _acceptance(record)
    picture = destination.with_suffix(".png")
    try:
        draw(destination.with_suffix(".history.json"), picture)
        click.echo(f"curves      {picture}")
    except EdgekitError as error:
        click.echo(f"curves      not drawn: {error.fact}; {error.next_step}")
    click.echo(
        f"next: edgekit export {shlex.quote(checkpoint)} -o BUNDLE --dtype int4 --draft {shlex.quote(str(destination))}"
    )


def _acceptance(record: dict[str, Any]) -> None:
    accepted = record.get("acceptance", {})
    for name, words in (("greedy", "likeliest token"), ("sampled", "temperature 1")):
        if name in accepted:
            rates = " ".join(f"{100 * rate:.0f}%" for rate in accepted[name])
            click.echo(f"accepted    {rates} of tokens 1 to {len(accepted[name])} on held-out text ({words})")
