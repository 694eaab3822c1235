"""The whole export: checkpoint → quantised weights, traced graph, rewritten form → bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit import contract
from edgekit.bundle import write_bundle
from edgekit.cache_sizes import cache_numbers
from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.special_tokens import special_token_ids
from edgekit.compress.quantizer import QuantizedModel, quantized_model
from edgekit.compress.units import is_matrix
from edgekit.errors import ExportError
from edgekit.export.bind import bind_weights
from edgekit.export.compressed_layers import CompressedLayers, compressed_layers
from edgekit.export.draft import write_draft
from edgekit.export.draft_features import add_draft_features
from edgekit.export.draft_heads import Heads, heads_for
from edgekit.export.encoder_bundle import encoder_bundle
from edgekit.export.estimate import Estimate, estimate
from edgekit.export.genai_config import GENAI_FILE, genai_config
from edgekit.export.options import DEFAULT_MAX_CONTEXT, DTYPES, ExportOptions
from edgekit.export.records import (
    graph_record,
    model_name,
    operators_record,
    provenance_record,
    versions_record,
    write_graph,
    write_json,
)
from edgekit.export.target import check_target
from edgekit.export.trace import Traced, traced_from_config
from edgekit.layers.decoder import Decoder
from edgekit.models.registry import check_weights, kind_of, model_on_meta, weight_map
from edgekit.progress import Progress
from edgekit.rewrite.pipelines import PIPELINES, rewrite
from edgekit.rewrite.rule import Context

__all__ = ["DTYPES", "Estimate", "ExportOptions", "bundle_from_checkpoint", "estimate"]


def bundle_from_checkpoint(
    checkpoint: Checkpoint,
    destination: Path,
    options: ExportOptions,
    *,
    overwrite: bool = False,
    progress: Progress,
    recipe: dict[str, Any] | None = None,
) -> Path:
    """Export a checkpoint to a bundle at `destination`, which appears there as a whole.

    Args:
        recipe: recorded in the manifest as what made the bundle.

    Raises:
        ModelError, CheckpointError, ExportError, RewriteError: the checkpoint or its graph is not as it must be.
        BundleError, DoesNotFit: the destination is taken, or too small.
    """
    if kind_of(checkpoint.config) == contract.KIND_ENCODER:
        return encoder_bundle(checkpoint, destination, options, overwrite=overwrite, progress=progress, recipe=recipe)
    tokenizer = checkpoint.tokenizer_files()
    max_context = _max_context(checkpoint.config, options)
    model = model_on_meta(checkpoint.config, max_context)
    check_weights(model, checkpoint)
    heads = _heads(checkpoint, model, options, progress)
    layers = compressed_layers(checkpoint, options)
    with write_bundle(destination, overwrite=overwrite) as draft:
        progress.stage("trace")
        traced = traced_from_config(checkpoint.config, options.activations, max_context, layers.place)
        traced.geometry = replace(traced.geometry, without_base=layers.without_base)
        sources = {name: source for name, source in weight_map(model).items() if name not in layers.names}
        tables = {name: table.numpy() for name, table in model.rope_tables().items()}
        bind_weights(traced.graph, checkpoint, sources, tables, options.activations, layers.constants())
        quantized = _quantized(checkpoint, options, progress, layers)
        context = Context(traced.geometry, options.activations, quantized, max_context)
        progress.stage("rewrite", len(PIPELINES[options.form]), "rules")
        rules = rewrite(traced.graph, options.form, context, lambda name: progress.advance())
        if heads is not None:
            read = heads.found.heads.config.feature_layers
            add_draft_features(traced.graph, read, traced.geometry.hidden_size, options.activations)
        structure = write_graph(traced.graph, draft.path, progress, standard=options.form != contract.FORM_ORT)
        check_target(structure, options.form)
        for name, contents in tokenizer.items():
            (draft.path / name).write_bytes(contents)
        write_json(draft.path / "config.json", checkpoint.config)
        if heads is not None:
            draft.manifest["draft"] = write_draft(heads, checkpoint, model, options, draft.path, progress)
        progress.stage("hash")
        draft.manifest.update(_manifest(checkpoint, options, traced, structure, max_context, tokenizer))
        draft.manifest["rules"] = layers.of_bases() | {name: outcome.to_dict() for name, outcome in rules.items()}
        draft.manifest["quantization"] = quantized.record() if quantized is not None else None
        draft.manifest["recipe"] = recipe
        if heads is not None:
            draft.manifest["provenance"]["draft"] = heads.provenance()
        if options.form == contract.FORM_ORT:
            generation = json.loads(tokenizer.get("generation_config.json", b"{}"))
            genai = genai_config(draft.manifest["model"], draft.manifest["tokens"], generation, max_context=max_context)
            if genai is not None:
                write_json(draft.path / GENAI_FILE, genai)
    return destination


def _heads(checkpoint: Checkpoint, model: Decoder, options: ExportOptions, progress: Progress) -> Heads | None:
    """The draft heads that were asked for, before anything is made."""
    if options.draft is None:
        return None
    heads = heads_for(checkpoint, model, Path(options.draft), options.draft_components, options.draft_tokens)
    if heads.of_checkpoint is False:
        progress.note(
            f"{heads.path.name} was trained on another checkpoint of the same sizes: its drafts may often be wrong, "
            "which costs time; the text stays the model's own"
        )
    return heads


def _max_context(config: dict[str, Any], options: ExportOptions) -> int:
    own = int(config["max_position_embeddings"])
    if options.max_context is not None and options.max_context > own:
        raise ExportError(
            "a bundle cannot serve a longer context than its model",
            f"{options.max_context} tokens were asked for, the model serves {own}",
            f"choose --max-context {own} or less",
        )
    return options.max_context or min(own, DEFAULT_MAX_CONTEXT)


def _quantized(
    checkpoint: Checkpoint, options: ExportOptions, progress: Progress, layers: CompressedLayers
) -> QuantizedModel | None:
    settings, result = options.quantization, None
    if settings is not None:
        names = [name for name in checkpoint.names() if is_matrix(name, checkpoint.spec(name).shape)]
        names = [name for name in names if name not in layers.names]
        result = quantized_model(checkpoint, names, settings, progress)
    layers.add_bases(result, options)
    return result


def _manifest(
    checkpoint: Checkpoint,
    options: ExportOptions,
    traced: Traced,
    structure: onnx.ModelProto,
    max_context: int,
    tokenizer: dict[str, bytes],
) -> dict[str, Any]:
    geometry = traced.geometry
    cache_dtype = options.activations
    numbers = sum(tensor.numbers for cache in geometry.caches for tensor in cache)
    per_token = numbers * np.dtype(cache_dtype).itemsize
    shared = options.form == contract.FORM_ORT or all(
        contract.AXIS_PAST not in [axis.dim_param for axis in value.type.tensor_type.shape.dim]
        for value in structure.graph.input
        if value.name.startswith("past_key_values.")
    )
    return {
        "model": {
            "name": options.name or model_name(checkpoint),
            "model_type": checkpoint.config["model_type"],
            "layers": geometry.layers,
            "heads": geometry.heads,
            "kv_heads": geometry.kv_heads,
            "head_dim": geometry.head_dim,
            "vocab_size": geometry.vocab_size,
            "hidden_size": geometry.hidden_size,
            "max_context": int(checkpoint.config["max_position_embeddings"]),
        },
        "form": options.form,
        "dtype": options.dtype,
        "cache": {
            "kind": contract.CACHE_SHARED if shared else contract.CACHE_CONCAT,
            "dtype": cache_dtype,
            "capacity_limit": max_context,
            "bytes_per_token": per_token,
            "bytes_per_token_of": {
                name: size * np.dtype(cache_dtype).itemsize
                for name, size in cache_numbers(
                    geometry.layers, geometry.heads, geometry.kv_heads, geometry.head_dim
                ).items()
            },
        },
        "graph": graph_record(structure, traced.taps),
        "operators": operators_record(structure),
        "tokens": special_token_ids(checkpoint, tokenizer),
        "provenance": provenance_record(checkpoint),
        "versions": versions_record(),
    }
