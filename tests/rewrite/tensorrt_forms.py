"""Tiny random T6 models and others in the forms for TensorRT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import save_file

from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.export.trace import Traced, traced_from_config
from edgekit.export.write import write_model
from edgekit.rewrite.pipelines import rule_named
from edgekit.rewrite.rule import Context, Outcome, run_rule
from tests.models.t6_tools import CONFIG, random_model
from tests.rewrite.tiny_graphs import CONTEXT, bind


def t6_checkpoint(folder: Path, **changes: Any) -> Checkpoint:
    """A random T6 model as a checkpoint directory."""
    config = CONFIG | changes
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    weights = {
        name: tensor.contiguous() for name, tensor in random_model(config, dtype=torch.float32).state_dict().items()
    }
    owned = {name: tensor.clone() for name, tensor in weights.items() if not name.startswith("rope.")}
    if config.get("tie_word_embeddings", True):
        owned.pop("lm_head.weight", None)
    save_file(owned, folder / "model.safetensors")
    return open_checkpoint(folder)


def bound(checkpoint: Checkpoint, dtype: str) -> Traced:
    """The traced graph with its weights."""
    traced = traced_from_config(checkpoint.config, dtype, CONTEXT)
    bind(traced, checkpoint, dtype)
    return traced


def write_form(
    traced: Traced, pipeline: Sequence[str], folder: Path, dtype: str
) -> tuple[onnx.ModelProto, dict[str, Outcome]]:
    """Run the rules in order on a copy and write the model."""
    folder.mkdir(parents=True)
    traced = Traced(traced.graph.copy(), traced.geometry, traced.taps)
    context = Context(traced.geometry, dtype)
    outcomes = {name: run_rule(rule_named(name), traced.graph, context) for name in pipeline}
    return write_model(traced.graph, folder), outcomes
