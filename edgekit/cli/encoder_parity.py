"""What `edgekit parity` does with an encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.parity.encoder_report import EncoderReport


def compare_encoder(
    path: Path,
    bundle: Bundle,
    against: str | None,
    prompts: Path | None,
    threads: int | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Compare, keep the result as parity.json, print it. Raises ParityFailed when a tolerance is broken."""
    from edgekit.bundle import write_sidecar
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.parity.encoder_check import encoder_parity
    from edgekit.parity.origin import checkpoint_of
    from edgekit.parity.prompts import prompts_from_file

    texts = None if prompts is None else prompts_from_file(prompts)
    checkpoint = checkpoint_of(bundle, against, offline=offline)
    with displayed_progress() as progress:
        report = encoder_parity(bundle, checkpoint, texts=texts, threads=threads, progress=progress)
    write_sidecar(bundle, "parity", report.to_dict())
    if as_json:
        click.echo(json.dumps({"bundle": str(path), **report.to_dict()}, indent=2))
    else:
        _print(report)
    report.require()
    if not as_json:
        click.echo(f"{path}: passed")


def _print(report: EncoderReport) -> None:
    from edgekit.cli.table import print_table

    click.echo(
        f"{report.dtype}, {report.form} form, {report.activations} activations; compared with {report.checkpoint}"
    )
    rows = []
    for bits in sorted({weight.bits for weight in report.weights}):
        weights = [weight for weight in report.weights if weight.bits == bits]
        rows.append(
            (
                f"{bits}-bit",
                str(len(weights)),
                f"{max(weight.relative_error for weight in weights):.4f}",
                "FAILED" if any(weight.objection for weight in weights) else "ok",
            )
        )
    if rows:
        print_table(("stored weights", "matrices", "relative error", "verdict"), rows)
    print_table(
        ("way to run it", "after", "cosine", "max error", "relative", "verdict"),
        [
            (
                stage.mode,
                stage.name,
                f"{stage.difference.cosine:.7f}",
                f"{stage.difference.max_abs_error:.2e}",
                f"{stage.difference.relative_error:.2e}",
                "FAILED" if stage.objection else "ok",
            )
            for stage in report.stages
        ],
        f"graph; PyTorch holds {report.against} and runs each text by itself",
    )
    found = report.embeddings
    print_table(
        ("embeddings, with the original model", "", "tolerance"),
        [
            ("texts", f"{found.texts}, {report.cut} of them cut", ""),
            ("cosine, mean", f"{found.cosine_mean:.7f}", ""),
            ("cosine, smallest", f"{found.cosine_min:.7f}", f">= {found.least_cosine:g}"),
            ("largest error", f"{found.max_abs_error:.2e}", ""),
        ],
    )
