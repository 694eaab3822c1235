"""Prove that a bundle computes what PyTorch computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgekit.parity.compare import Difference
    from edgekit.parity.report import DraftAgreement, ParityReport, Stage

#: The ways to run a graph that are shown layer by layer: those whose activations are not rounded to 8 bits.
EXACT_MODES = ("prefill", "chunked", "decode")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--against", metavar="CHECKPOINT", help="What to compare with.  [default: what the bundle was made from]")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Prompts, separated by lines that hold only %%.  [default: eight that are shipped]",
)
@click.option(
    "--draft",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="HEADS",
    help="The bundle's draft heads.  [default: where they were when it was made]",
)
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    help="Length of each prompt's greedy continuation, of a decoder.  [default: 64]",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: one per physical core]")
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the checkpoint is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print every stage as JSON.")
def command(
    bundle: Path,
    against: str | None,
    prompts: Path | None,
    draft: Path | None,
    tokens: int | None,
    threads: int | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Prove that a bundle computes what PyTorch computes.

    Prompts are continued greedily by PyTorch in float32; then both run over the same tokens, and the residual stream
    after each layer, the caches and the logits are compared, with the whole text at once, in chunks and token by
    token. So are draft heads, where the bundle has some. An encoder's embeddings and hidden states are compared text by
    text and in a padded batch. The result is kept in the bundle as parity.json. Exits with 3 when a tolerance is
    broken.
    """
    from edgekit.bundle import read_bundle, write_sidecar
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.cli.torch_needed import require_torch

    opened = read_bundle(bundle)
    require_torch("comparing a bundle with PyTorch")
    if opened.manifest.kind == "encoder":
        from edgekit.cli.encoder_parity import compare_encoder

        if tokens is not None:
            raise click.UsageError("--tokens has no effect with an encoder, which continues nothing.")
        if draft is not None:
            raise click.UsageError("--draft has no effect with an encoder, which has no draft heads.")
        compare_encoder(bundle, opened, against, prompts, threads, offline, as_json)
        return
    from edgekit.parity.check import TOKENS, parity_of
    from edgekit.parity.origin import checkpoint_of, heads_of
    from edgekit.parity.prompts import prompts_from_file

    texts = None if prompts is None else prompts_from_file(prompts)
    checkpoint = checkpoint_of(opened, against, offline=offline)
    heads = heads_of(opened, draft)
    with displayed_progress() as progress:
        report = parity_of(
            opened,
            checkpoint,
            prompts=texts,
            tokens=tokens or TOKENS,
            threads=threads,
            heads=heads,
            progress=progress,
        )
    write_sidecar(opened, "parity", report.to_dict())
    if as_json:
        click.echo(json.dumps({"bundle": str(bundle), **report.to_dict()}, indent=2))
    else:
        _print(report)
    report.require()
    if not as_json:
        click.echo(f"{bundle}: passed")


def _print(report: ParityReport) -> None:
    from edgekit.cli.table import print_table

    click.echo(
        f"{report.dtype}, {report.form} form, {report.activations} activations; compared with {report.checkpoint}"
    )
    if report.weights:
        print_table(
            ("stored weights", "matrices", "relative error", "of any row", "verdict"),
            [_weight_row(report, bits) for bits in sorted({weight.bits for weight in report.weights})],
        )
    print_table(
        (
            "after layer",
            "hidden cosine",
            "max error",
            "key cosine",
            "max error",
            "value cosine",
            "max error",
            "verdict",
        ),
        _layer_rows(report),
        f"graph, the worst of {', '.join(EXACT_MODES)}; PyTorch holds {report.against}",
    )
    print_table(
        ("way to run it", "hidden cosine", "cache cosine", "logits cosine", "max |Δlogit|", "relative", "verdict"),
        _mode_rows(report),
    )
    model = report.model
    rows = [
        ("positions", f"{model.positions:,}", ""),
        ("KL divergence, mean", f"{model.kl_mean:.3g} nats", f"<= {model.tolerance.kl_mean:g}"),
        ("KL divergence, max", f"{model.kl_max:.3g} nats", ""),
        ("same first choice", f"{model.top1:.2%}", f">= {model.tolerance.top1:.0%}"),
        (
            "greedy tokens in common",
            f"{min(model.greedy_prefixes)} to {max(model.greedy_prefixes)} of {model.greedy_tokens}",
            " ".join(map(str, model.greedy_prefixes)),
        ),
    ]
    print_table(("choices, with the original model", "", "tolerance"), rows)
    if report.draft is not None:
        print_table(("draft heads, with the original model's features", "", "tolerance"), _draft_rows(report.draft))


def _draft_rows(found: DraftAgreement) -> list[tuple[str, ...]]:
    return [
        ("drafts", f"{found.positions:,}", ""),
        ("total variation, mean", f"{found.variation_mean:.3g}", f"<= {found.tolerance.tokens:g}"),
        ("total variation, max", f"{found.variation_max:.3g}", ""),
        ("of the components' weights", f"{found.weights_variation:.3g}", f"<= {found.tolerance.weights:g}"),
        ("KL divergence, mean", f"{found.kl_mean:.3g} nats", ""),
        ("same first choice", f"{found.top1:.2%}", ""),
    ]


def _weight_row(report: ParityReport, bits: int) -> tuple[str, ...]:
    weights = [weight for weight in report.weights if weight.bits == bits]
    failed = any(weight.objection for weight in weights)
    return (
        f"{bits}-bit",
        str(len(weights)),
        f"{max(weight.relative_error for weight in weights):.4f}",
        f"{max(weight.worst_row for weight in weights):.4f}",
        "FAILED" if failed else "ok",
    )


def _layer_rows(report: ParityReport) -> list[tuple[str, ...]]:
    """For each layer the worst of the exact modes."""
    stages = [stage for stage in report.stages if stage.mode in EXACT_MODES]
    last = max(int(stage.name.split(".")[1]) for stage in stages if stage.name.startswith("hidden."))
    rows = []
    for index in range(last + 1):
        # hidden.i is what layer i reads; row i shows what layer i-1 has made, in the order in which data flows.
        # A cache of factors has several tensors of each kind, such as key_a and key_b.
        own = {
            "hidden": [s for s in stages if s.name == f"hidden.{index}"],
            "key": [s for s in stages if s.name.startswith(f"cache.{index - 1}.key")],
            "value": [s for s in stages if s.name.startswith(f"cache.{index - 1}.value")],
        }
        cells = [cell for kind in ("hidden", "key", "value") for cell in _cells(own[kind])]
        verdict = _verdict([stage for found in own.values() for stage in found])
        rows.append(("embedding" if index == 0 else str(index - 1), *cells, verdict))
    return rows


def _mode_rows(report: ParityReport) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for mode in dict.fromkeys(stage.mode for stage in report.stages):
        stages = [stage for stage in report.stages if stage.mode == mode]
        kinds = {kind: [s for s in stages if s.name.startswith(kind)] for kind in ("hidden", "cache", "logits")}
        logits = _worst(kinds["logits"])
        rows.append(
            (
                mode,
                _cells(kinds["hidden"])[0],
                _cells(kinds["cache"])[0],
                _cells(kinds["logits"])[0],
                f"{logits.max_abs_error:.2e}",
                f"{logits.relative_error:.2e}",
                _verdict(stages),
            )
        )
    return rows


def _worst(stages: list[Stage]) -> Difference:
    worst = stages[0].difference
    for stage in stages[1:]:
        worst = worst.worst(stage.difference)
    return worst


def _cells(stages: list[Stage]) -> tuple[str, str]:
    """Cosine and largest error of the worst; dashes where there is nothing to show."""
    if not stages:
        return "-", "-"
    worst = _worst(stages)
    return f"{worst.cosine:.7f}", f"{worst.max_abs_error:.2e}"


def _verdict(stages: list[Stage]) -> str:
    return "FAILED" if any(stage.objection for stage in stages) else "ok"
