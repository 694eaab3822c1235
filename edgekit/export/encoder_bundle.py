"""The export of an encoder: checkpoint → quantised weights, traced graph with pooling, rewritten form → bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from edgekit import contract
from edgekit.bundle import write_bundle
from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.pooling_files import Pooling, pooling_of
from edgekit.compress.encoder import WORD_EMBEDDINGS, quantized_encoder
from edgekit.compress.quantizer import ALLOWED_COST
from edgekit.errors import CheckpointError, ExportError
from edgekit.export.bind import bind_weights
from edgekit.export.compressed_layers import compressed_layers
from edgekit.export.options import ExportOptions
from edgekit.export.records import (
    graph_record,
    model_name,
    operators_record,
    provenance_record,
    versions_record,
    write_graph,
    write_json,
)
from edgekit.export.trace import Traced
from edgekit.export.trace_encoder import matrix_names, traced_encoder
from edgekit.layers.encoder import Encoder
from edgekit.models.registry import check_weights, encoder_on_meta, weight_map
from edgekit.progress import Progress
from edgekit.rewrite.pipelines import ENCODER_PIPELINES, rewrite
from edgekit.rewrite.rule import Context

#: Files of a tokenizer that only decoders need.
_FOR_DECODERS = ("generation_config.json", "chat_template.jinja")


def encoder_bundle(
    checkpoint: Checkpoint,
    destination: Path,
    options: ExportOptions,
    *,
    overwrite: bool,
    progress: Progress,
    recipe: dict[str, Any] | None,
) -> Path:
    """As `edgekit.export.bundle_from_checkpoint.bundle_from_checkpoint`, for an encoder with sentence-transformers'
    files beside its weights.

    Raises:
        ModelError, CheckpointError, ExportError, RewriteError: the checkpoint or its graph is not as it must be.
        BundleError, DoesNotFit: the destination is taken, or too small.
    """
    _check_options(options)
    pooling = pooling_of(_directory(checkpoint))
    tokenizer = checkpoint.tokenizer_files()
    model = encoder_on_meta(checkpoint.config)
    max_tokens = _max_tokens(model, pooling, options)
    check_weights(model, checkpoint)
    layers = compressed_layers(checkpoint, options)
    with write_bundle(destination, overwrite=overwrite) as draft:
        progress.stage("trace")
        traced = traced_encoder(checkpoint.config, pooling, options.activations, layers.place)
        traced.geometry = replace(traced.geometry, without_base=layers.without_base)
        tables = {name: table.numpy() for name, table in model.tables().items()}
        sources = {name: source for name, source in weight_map(model).items() if name not in layers.names}
        bind_weights(traced.graph, checkpoint, sources, tables, options.activations, layers.constants())
        settings = options.quantization
        # Only the ort form has an operator that looks up rows of codes.
        table = options.form == contract.FORM_ORT
        quantized = (
            quantized_encoder(
                checkpoint,
                [name for name in matrix_names(model) if name not in layers.names],
                settings,
                progress,
                word_embeddings=table and WORD_EMBEDDINGS not in layers.names,
            )
            if settings is not None
            else None
        )
        layers.add_bases(quantized, options)
        context = Context(traced.geometry, options.activations, quantized)
        progress.stage("rewrite", len(ENCODER_PIPELINES[options.form]), "rules")
        rules = rewrite(traced.graph, options.form, context, lambda name: progress.advance(), ENCODER_PIPELINES)
        structure = write_graph(traced.graph, draft.path, progress, standard=options.form != contract.FORM_ORT)
        for name, contents in tokenizer.items():
            if name not in _FOR_DECODERS:
                (draft.path / name).write_bytes(contents)
        write_json(draft.path / "config.json", checkpoint.config)
        progress.stage("hash")
        draft.manifest.update(_manifest(checkpoint, options, model, pooling, max_tokens, traced, structure))
        draft.manifest["rules"] = layers.of_bases() | {name: outcome.to_dict() for name, outcome in rules.items()}
        draft.manifest["quantization"] = quantized.record() if quantized is not None else None
        draft.manifest["recipe"] = recipe
    return destination


def _check_options(options: ExportOptions) -> None:
    if options.form not in ENCODER_PIPELINES:
        raise ExportError(
            f"an encoder's form must be one of {', '.join(ENCODER_PIPELINES)}",
            f"{options.form} was asked for",
            "choose another --form: encoders run in ONNX Runtime",
        )
    if options.allowed_cost != ALLOWED_COST:
        raise ExportError(
            "the cost of 4 bits is measured in the loss of a decoder",
            "--allowed-cost was given for an encoder, which has no such loss",
            "leave it out; --keep-8bit names matrices that stay at 8 bits",
        )
    if options.draft is not None:
        raise ExportError(
            "draft heads propose tokens to a decoder",
            "--draft was given for an encoder, which continues nothing",
            "export it without --draft",
        )


def _directory(checkpoint: Checkpoint) -> Path:
    if not checkpoint.path.is_dir():
        raise CheckpointError(
            "an encoder's checkpoint is a directory of sentence-transformers",
            f"{checkpoint.path} is a file",
            "give the directory that holds modules.json",
        )
    return checkpoint.path


def _max_tokens(model: Encoder, pooling: Pooling, options: ExportOptions) -> int:
    wanted = options.max_context or pooling.max_tokens or model.max_positions
    if wanted > model.max_positions:
        raise ExportError(
            "a bundle cannot take longer texts than its model",
            f"{wanted} tokens were asked for, the model takes {model.max_positions}",
            f"choose --max-context {model.max_positions} or less",
        )
    return wanted


def _manifest(
    checkpoint: Checkpoint,
    options: ExportOptions,
    model: Encoder,
    pooling: Pooling,
    max_tokens: int,
    traced: Traced,
    structure: onnx.ModelProto,
) -> dict[str, Any]:
    geometry, config = traced.geometry, model.config
    return {
        "kind": contract.KIND_ENCODER,
        "model": {
            "name": options.name or model_name(checkpoint),
            "model_type": checkpoint.config["model_type"],
            "layers": geometry.layers,
            "heads": geometry.heads,
            "kv_heads": geometry.kv_heads,
            "head_dim": geometry.head_dim,
            "vocab_size": geometry.vocab_size,
            "hidden_size": geometry.hidden_size,
            "max_context": model.max_positions,
        },
        "encoder": {
            "pooling": pooling.mode,
            "normalize": pooling.normalize,
            "dimensions": geometry.hidden_size,
            "max_tokens": max_tokens,
        },
        "form": options.form,
        "dtype": options.dtype,
        "cache": {
            "kind": contract.CACHE_NONE,
            "dtype": options.activations,
            "capacity_limit": max_tokens,
            "bytes_per_token": 0,
        },
        "graph": graph_record(structure, traced.taps),
        "operators": operators_record(structure),
        "tokens": {"bos": None, "eos": [], "pad": config.pad_token_id, "add_bos": False},
        "provenance": provenance_record(checkpoint),
        "versions": versions_record(),
    }
