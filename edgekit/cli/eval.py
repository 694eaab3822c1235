"""Measure what a model can: perplexity of a text, multiple-choice questions, or embeddings against the original's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.generation import backend_option
from edgekit.words import counted

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.evaluate.perplexity import EncodedText, Perplexity
    from edgekit.evaluate.windows import WindowPlan
    from edgekit.progress import Progress


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--text",
    "text_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="UTF-8; a decoder needs it.",
)
@click.option(
    "--choices",
    "choices_file",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help='Ask multiple-choice questions instead: JSON lines of "question", "choices", "answer".',
)
@click.option("--limit", type=click.IntRange(min=1), help="With --choices: ask only the first questions.")
@click.option("--context", type=click.IntRange(min=2), default=512, show_default=True, help="Tokens of a window.")
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="Tokens between the starts of windows; a smaller one gives each token more context.  [default: no overlap]",
)
@click.option("--max-windows", type=click.IntRange(min=1), help="Measure only the first windows.")
@click.option("--against", metavar="CHECKPOINT", help="Measure this checkpoint in PyTorch, float32, for comparison.")
@click.option(
    "--baseline", metavar="BUNDLE", type=click.Path(path_type=Path), help="Measure another bundle, for comparison."
)
@click.option("--resume/--restart", default=True, help="Go on with an interrupted measurement, or begin again.")
@backend_option
@click.option(
    "--operators",
    type=click.Choice(["auto", "native", "functions"]),
    default="auto",
    show_default=True,
    help="How custom operators run: compiled, as the standard operators the graph carries, or what can be had.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: one per physical core]")
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the checkpoint is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    bundle: Path,
    text_file: Path | None,
    choices_file: Path | None,
    limit: int | None,
    context: int,
    stride: int | None,
    max_windows: int | None,
    against: str | None,
    baseline: Path | None,
    resume: bool,
    backend: str,
    operators: str,
    threads: int | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Measure the perplexity of a text, answers to multiple-choice questions, or an encoder's embeddings.

    The text is cut into windows of --context tokens. Each token is predicted once, from those before it in its
    window; the first of a window that nothing comes before is not predicted. Where the bundle begins texts with a
    token of its own, every window begins with it.

    With --choices each choice is scored by the log-likelihood of its tokens after "Question: …", "Answer:", and by that
    divided by its characters; BUNDLE may be a checkpoint then, which PyTorch runs in float32. Nothing is kept in the
    bundle.

    An encoder needs no --text: its embeddings of labelled passages that are shipped are compared with those of the
    checkpoint it was made from, or of --against or --baseline.

    The result of a text or of embeddings is kept in the bundle as eval.json.
    """
    if against is not None and baseline is not None:
        raise click.UsageError("--against and --baseline exclude each other.")

    if choices_file is not None:
        from edgekit.cli.choices_eval import evaluate_choices

        _refuse(("text_file", "context", "stride", "max_windows"), "with --choices")
        settings: dict[str, Any] = {"backend": backend, "operators": operators, "threads": threads, "resume": resume}
        evaluate_choices(bundle, choices_file, limit, against, baseline, settings, offline, as_json)
        return
    _refuse(("limit",), "without --choices")

    from edgekit.bundle import read_bundle, write_sidecar

    opened = read_bundle(bundle)
    if opened.manifest.kind == "encoder":
        from edgekit.cli.encoder_eval import evaluate_encoder

        _refuse(("text_file", "context", "stride", "max_windows", "resume", "operators"), "with an encoder")
        evaluate_encoder(bundle, opened, against, baseline, backend, threads, offline, as_json)
        return
    if text_file is None:
        raise click.UsageError("Missing option '--text'.")

    from edgekit.cli.display_progress import displayed_progress
    from edgekit.cli.torch_needed import require_torch
    from edgekit.evaluate.document import eval_document
    from edgekit.evaluate.of_bundle import perplexity_of_bundle
    from edgekit.evaluate.text import encoded_text
    from edgekit.evaluate.windows import plan_of

    if against is not None:
        require_torch("measuring a checkpoint")
    tokens = opened.manifest.tokens
    plan = plan_of(context, stride, tokens.bos if tokens.add_bos else None)
    text = encoded_text(text_file, opened)
    settings = {
        "backend": backend,
        "operators": operators,
        "threads": threads,
        "max_windows": max_windows,
        "resume": resume,
    }
    reference: tuple[str, Perplexity] | None = None
    with displayed_progress() as progress:
        if against is not None:
            other = _of_checkpoint(against, offline, text, plan, max_windows, resume, progress)
            reference = f"{against}, PyTorch float32", other
        elif baseline is not None:
            reference = str(baseline), _of_baseline(baseline, text_file, text, plan, settings, progress)
        found = perplexity_of_bundle(opened, text, plan, progress=progress, **settings)

    document = eval_document(text, plan, found, reference)
    write_sidecar(opened, "eval", document)
    if as_json:
        click.echo(json.dumps({"bundle": str(bundle), **document}, indent=2))
    else:
        _print(document)


def _refuse(names: tuple[str, ...], where: str) -> None:
    """Options that have no effect are refused, not ignored."""
    current = click.get_current_context()
    for parameter in names:
        if current.get_parameter_source(parameter) is not click.core.ParameterSource.DEFAULT:
            name = {"text_file": "text"}.get(parameter, parameter).replace("_", "-")
            raise click.UsageError(f"--{name} has no effect {where}.")


def _of_checkpoint(
    against: str,
    offline: bool,
    text: EncodedText,
    plan: WindowPlan,
    max_windows: int | None,
    resume: bool,
    progress: Progress,
) -> Perplexity:
    from edgekit.checkpoint import open_checkpoint
    from edgekit.parity.reference_perplexity import perplexity_of_checkpoint

    progress.stage(f"opening {against}")
    checkpoint = open_checkpoint(against, offline=offline)
    return perplexity_of_checkpoint(checkpoint, text, plan, max_windows=max_windows, resume=resume, progress=progress)


def _of_baseline(
    path: Path, text_file: Path, text: EncodedText, plan: WindowPlan, settings: dict[str, Any], progress: Progress
) -> Perplexity:
    from edgekit.bundle import read_bundle
    from edgekit.errors import EdgekitError
    from edgekit.evaluate.of_bundle import perplexity_of_bundle
    from edgekit.evaluate.text import encoded_text

    bundle: Bundle = read_bundle(path)
    if encoded_text(text_file, bundle).tokens != text.tokens:
        raise EdgekitError(
            "perplexities are compared on the same tokens",
            f"the tokenizer of {path} makes others of {text.name}",
            "give a --baseline with the same tokenizer, or compare bits per byte",
        )
    return perplexity_of_bundle(bundle, text, plan, progress=progress, **settings)


def _print(document: dict[str, Any]) -> None:
    text, bos = document["text"], document["bos"]
    start = "no token put before" if bos is None else f"token {bos} put before each"
    overlap = " (no overlap)" if document["stride"] == document["context"] - (bos is not None) else ""
    rows = [
        ("text", f"{text['name']}, {text['bytes']:,} bytes, {text['tokens']:,} tokens"),
        (
            "windows",
            f"{document['windows']:,} of {document['context']} tokens, stride {document['stride']}{overlap}, {start}",
        ),
        ("predicted", counted(document["tokens"], "tokens")),
        ("perplexity", _with_error(document["perplexity"], document["standard_error"])),
        ("nats per token", f"{document['nats'] / document['tokens']:.5f}"),
        ("bits per byte", f"{document['bits_per_byte']:.5f}"),
    ]
    if (reference := document["reference"]) is not None:
        rows.append(("reference", reference["name"]))
        rows.append(("perplexity", _with_error(reference["perplexity"], reference["standard_error"])))
        error = reference["ratio_standard_error"]
        paired = "" if error is None else f" ± {error * 100:.2f}"
        rows.append(("change", f"{(reference['ratio'] - 1) * 100:+.2f}{paired} %"))
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}}  {value}")


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" + ("" if error is None else f" ± {error:.4f}")
