"""Compare bundles in one table and one plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.generation import backend_option

if TYPE_CHECKING:
    from edgekit.compare.run import Comparison
    from edgekit.compare.subject import Subjects

_OF_DECODERS = ("text_file", "context", "windows", "depth", "decode_tokens", "operators")


@click.command()
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--reference",
    metavar="BUNDLE|CHECKPOINT",
    help="What the others are measured to; a checkpoint runs in PyTorch, float32.  [default: the first bundle]",
)
@click.option(
    "--text",
    "text_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="UTF-8, to predict.  [default: 42 kB of speeches that are shipped]",
)
@click.option("--context", type=click.IntRange(min=2), help="Tokens of a window.  [default: 512]")
@click.option(
    "--windows", type=click.IntRange(min=1), default=20, show_default=True, help="Measure at most the first so many."
)
@click.option(
    "--rounds",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Speed is timed in so many rounds over all bundles; 0 leaves it out.",
)
@click.option("--depth", type=click.IntRange(min=1), help="Tokens in the cache when decoding is timed.  [default: 256]")
@click.option(
    "--decode-tokens", type=click.IntRange(min=1), default=32, show_default=True, help="Tokens decoded in each timing."
)
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Write a page (.html) or a plot (.png); may be given for both.",
)
@backend_option
@click.option(
    "--operators",
    type=click.Choice(["auto", "native", "functions"]),
    default="auto",
    show_default=True,
    help="How custom operators run: compiled, as the standard operators the graph carries, or what can be had.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: one per physical core]")
@click.option(
    "--cache/--no-cache", default=True, help="Take finished measurements from the cache, and keep them there."
)
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the checkpoint is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, every sample included.")
def command(
    bundles: tuple[Path, ...],
    reference: str | None,
    outputs: tuple[Path, ...],
    offline: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Compare bundles in one table and one plot: perplexity, KL to a reference, bytes, bytes per token, tokens/s.

    All predict the same windows of a text. One model is in memory at a time. Speed is timed in turns, A B C, A B C,
    each time in a process of its own that first checks its answers. A bundle that is no smaller and no better than
    another one is marked as beaten.

    Encoders are compared with encoders: their embeddings of shipped passages with the reference's, bytes, texts/s.

    Finished measurements are kept in edgekit's cache by the hashes of the bundles, so that an interrupted comparison
    goes on. Where a bundle fails, the others are compared, and the exit code tells.
    """
    if len(bundles) < 2 and reference is None:
        raise click.UsageError("give at least two bundles, or one and a --reference.")
    from edgekit.cli.compare_output import check_outputs, write_outputs
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.compare.run import compare
    from edgekit.compare.subject import is_bundle, open_subjects

    check_outputs(outputs)
    if reference is not None and not is_bundle(Path(reference)):
        from edgekit.cli.torch_needed import require_torch

        require_torch("measuring a checkpoint")
    with displayed_progress() as progress:
        progress.stage("opening", len(bundles), "bundles")
        subjects = open_subjects(bundles, reference, offline=offline)
        progress.advance(len(bundles))
        found = compare(subjects, _options(subjects, **choices), progress)
    write_outputs(found, outputs)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print(found, outputs)
    if found.failures:  # the table tells what there is, and the exit code that something is amiss
        raise found.failures[0]


def _options(subjects: Subjects, threads: int | None, backend: str, operators: str, **choices: Any) -> Any:
    """What is measured; click.UsageError for options that have no effect with encoders."""
    from edgekit.compare.run import Options
    from edgekit.compare.subject import Engine
    from edgekit.runtime.threads import default_threads

    if subjects.encoders:
        current = click.get_current_context()
        for parameter in _OF_DECODERS:
            if current.get_parameter_source(parameter) is not click.core.ParameterSource.DEFAULT:
                name = {"text_file": "text"}.get(parameter, parameter).replace("_", "-")
                raise click.UsageError(f"--{name} has no effect with encoders.")
    text = choices.pop("text_file")
    return Options(Engine(backend, operators, threads or default_threads()), text=text, **choices)


def _print(found: Comparison, outputs: tuple[Path, ...]) -> None:
    from edgekit.cli.table import print_table
    from edgekit.compare.words import head_and_rows, remarks

    head, rows = head_and_rows(found)
    print_table(head, rows)
    for line in remarks(found):
        click.echo(line)
    for output in outputs:
        click.echo(f"{output}: {output.stat().st_size / 1e3:,.0f} kB")
