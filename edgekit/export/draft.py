"""The second model of a bundle with draft heads: `draft.onnx`, its weights and its vocabulary."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import contract
from edgekit.checkpoint import Checkpoint
from edgekit.compress.quantizer import QuantizedModel
from edgekit.export.draft_graph import draft_graph
from edgekit.export.draft_heads import Heads
from edgekit.export.draft_weights import Storage, draft_weights
from edgekit.export.options import ExportOptions
from edgekit.export.target import check_target
from edgekit.export.write import DRAFT_FILE, check_model, data_file, write_model
from edgekit.layers.decoder import Decoder
from edgekit.progress import Progress
from edgekit.rewrite.pipelines import DRAFT_PIPELINES, rewrite
from edgekit.rewrite.rule import Context, Geometry

VOCABULARY_FILE = "draft_vocabulary.npy"


def write_draft(
    heads: Heads, checkpoint: Checkpoint, model: Decoder, options: ExportOptions, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Write the files of the heads into `folder`; the manifest's entry "draft".

    Args:
        model: of the checkpoint, on the meta device.

    Raises:
        RewriteError, ExportError: see `rewrite`, `check_model` and `check_target`.
    """
    config = heads.found.heads.config
    progress.stage("draft heads")
    ort = options.form == contract.FORM_ORT
    storage = Storage(options.activations, options.quantization, quantized_lookup=ort)
    weights, quantized = draft_weights(heads.found, checkpoint, model, storage)
    graph = draft_graph(config, weights, heads.components, options.activations)
    context = Context(_geometry(heads, model), options.activations, quantized)
    rules = rewrite(graph, options.form, context, pipelines=DRAFT_PIPELINES)
    structure = write_model(graph, folder, file=DRAFT_FILE)
    if not ort:
        check_model(folder / DRAFT_FILE)
    check_target(structure, options.form)
    buffer = io.BytesIO()
    np.save(buffer, heads.found.vocabulary.numpy().astype(np.int32), allow_pickle=False)
    (folder / VOCABULARY_FILE).write_bytes(buffer.getvalue())
    return {
        "file": DRAFT_FILE,
        "data": [data_file(DRAFT_FILE)],
        "vocabulary": VOCABULARY_FILE,
        "vocabulary_size": config.vocabulary,
        "tokens": config.tokens,
        "rank": config.rank,
        "components": heads.components,
        "feature_layers": list(config.feature_layers),
        "features": config.features,
        "window": config.window,
        "acceptance": heads.found.record.get("acceptance"),
        "rules": {name: outcome.to_dict() for name, outcome in rules.items()},
        "quantization": _record(quantized) if quantized is not None else None,
    }


def _record(quantized: QuantizedModel) -> dict[str, Any]:
    """How the matrices were rounded."""
    matrices = quantized.matrices
    return {
        "bits": quantized.settings.bits,
        "at_8_bits": sorted(name for name, matrix in matrices.items() if matrix.bits > quantized.settings.bits),
        "weight_bytes": sum(matrix.nbytes() for matrix in matrices.values()),
    }


def _geometry(heads: Heads, model: Decoder) -> Geometry:
    """No layers: rules expect nothing of a draft graph that a decoder's layers have."""
    vocab, hidden = model.model.embed_tokens.weight.shape
    return Geometry(0, 0, 0, 0, hidden, vocab, tied=model.lm_head is None)
