"""What `edgekit eval` does with an encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.words import counted

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.evaluate.labelled_text import LabelledText
    from edgekit.progress import Progress


def evaluate_encoder(
    path: Path,
    bundle: Bundle,
    against: str | None,
    baseline: Path | None,
    backend: str,
    threads: int | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Measure embeddings against another bundle's or the original's, keep the result as eval.json, print it."""
    from edgekit.bundle import read_bundle, write_sidecar
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.cli.torch_needed import require_torch
    from edgekit.evaluate.embeddings import measure_embeddings
    from edgekit.evaluate.labelled_text import SHIPPED, shipped_texts

    texts = shipped_texts()
    with displayed_progress() as progress:
        if baseline is not None:
            name, original = str(baseline), _of_bundle(read_bundle(baseline), texts, backend, threads, progress)
        else:
            require_torch("measuring a checkpoint")
            name, original = _of_checkpoint(bundle, against, texts, offline, progress)
        found = _of_bundle(bundle, texts, backend, threads, progress)
    measures = measure_embeddings(found, original, [each.label for each in texts], [each.training for each in texts])
    document = {"text": {"name": SHIPPED.name, "texts": len(texts)}, "reference": name, **measures.to_dict()}
    write_sidecar(bundle, "eval", document)
    if as_json:
        click.echo(json.dumps({"bundle": str(path), **document}, indent=2))
        return
    rows = [
        ("texts", f"{SHIPPED.name}, {counted(measures.texts, 'passages')}"),
        ("reference", name),
        ("cosine to its embeddings", f"mean {measures.cosine_mean:.5f}, smallest {measures.cosine_min:.5f}"),
        ("similarities of pairs", f"Spearman {measures.spearman:.5f}"),
        ("same nearest text", f"{measures.retrieval_top1:.1%}"),
        ("linear probe", f"{measures.probe_accuracy:.1%} right, the reference {measures.original_probe_accuracy:.1%}"),
    ]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}}  {value}")


def _of_bundle(bundle: Bundle, texts: list[LabelledText], backend: str, threads: int | None, progress: Progress) -> Any:
    from edgekit.runtime.encoder_session import EncoderSession
    from edgekit.runtime.encoder_text import encoder_tokenizer

    session = EncoderSession(bundle, backend=backend, threads=threads)
    tokens = encoder_tokenizer(bundle).encode([each.text for each in texts]).tokens
    progress.stage(f"embedding with {bundle.path}", len(tokens), "texts")
    return session.embed(tokens, advance=progress.advance)


def _of_checkpoint(
    bundle: Bundle, against: str | None, texts: list[LabelledText], offline: bool, progress: Progress
) -> tuple[str, Any]:
    from edgekit.parity.check import check_geometry
    from edgekit.parity.encoder_reference import TorchEncoder, encoder_info
    from edgekit.parity.origin import checkpoint_of
    from edgekit.runtime.encoder_text import encoder_tokenizer

    checkpoint = checkpoint_of(bundle, against, offline=offline)
    check_geometry(bundle, checkpoint)
    model = TorchEncoder(checkpoint, encoder_info(bundle))
    tokens = encoder_tokenizer(bundle).encode([each.text for each in texts]).tokens
    progress.stage("embedding with PyTorch", len(tokens), "texts")
    return f"{against or checkpoint.path}, PyTorch float32", model.embed(tokens, progress.advance)
