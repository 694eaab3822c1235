"""Train a small model from text."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import asdict
from pathlib import Path

import click


@click.command()
@click.argument("kind", type=click.Choice(["t6"]))
@click.option(
    "--config", "recipe_path", metavar="FILE", required=True, type=click.Path(path_type=Path), help="Training recipe."
)
@click.option(
    "-o", "--output", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Directory of the model."
)
@click.option(
    "--attention",
    type=click.Choice(["tpa", "gqa"]),
    default="tpa",
    show_default=True,
    help="Tensor product attention, or the recipe's grouped-query twin.",
)
@click.option(
    "--data",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Text of your own, UTF-8; blank lines part its documents.  [default: the recipe's packages]",
)
@click.option("--resume", is_flag=True, help="Continue the run in DIR.")
@click.option("--minutes", type=click.FloatRange(min=0), help="Stop after so long; --resume goes on from there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    kind: str,
    recipe_path: Path,
    output: Path,
    attention: str,
    data: Path | None,
    resume: bool,
    minutes: float | None,
    as_json: bool,
) -> None:
    """Train a small model from text.

    The state is saved as it goes: Ctrl-C stops after the current step, and --resume continues to the same weights, bit
    for bit, that an uninterrupted run reaches.
    """
    from edgekit.cli.display_progress import displayed_progress, duration
    from edgekit.cli.interruptible import interruptible
    from edgekit.cli.main import EXIT_INTERRUPTED
    from edgekit.cli.torch_needed import require_torch
    from edgekit.train.recipe import read_training_recipe

    recipe = read_training_recipe(recipe_path)
    require_torch("training")
    from edgekit.train.run import train

    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    with interruptible() as interrupted, displayed_progress() as progress:

        def stop() -> bool:
            return interrupted() or (deadline is not None and time.monotonic() >= deadline)

        trained = train(recipe, attention, output, data=data, resume=resume, stop=stop, progress=progress)
    if as_json:
        click.echo(json.dumps({"output": str(output), "attention": attention, **asdict(trained)}, indent=2))
    else:
        click.echo(f"{output}: {trained.parameters:,} parameters, {trained.weight_bytes / 1e6:.1f} MB")
        click.echo(f"steps          {trained.step} of {trained.steps} in {duration(trained.seconds)}")
        click.echo(f"held-out loss  {trained.held_out_loss:.4f} nats/token, {trained.bits_per_byte:.4f} bits/byte")
        click.echo(f"cache          {2 * trained.cache_numbers_per_token:,} bytes/token in float16")
        if trained.finished:
            click.echo(f"next: edgekit export {shlex.quote(str(output))} -o BUNDLE --dtype fp16")
        else:
            again = ["train", kind, "--config", recipe_path, "-o", output, "--attention", attention]
            again += [*(() if data is None else ("--data", data)), "--resume"]
            click.echo(f"next: edgekit {shlex.join(map(str, again))}")
    if interrupted():
        raise click.exceptions.Exit(EXIT_INTERRUPTED)
