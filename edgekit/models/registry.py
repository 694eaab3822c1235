"""Architectures by model_type, and models from configurations and checkpoints.

An architecture is a file of this folder, named by its Hugging Face model_type, with a `Config` and a `Model`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

import edgekit.models
from edgekit.errors import ModelError
from edgekit.layers.decoder import Decoder
from edgekit.models._weights import TRANSFORMS, Weights, WeightSource, assign_weights, check_weights, weight_sources

__all__ = [
    "TRANSFORMS",
    "WeightSource",
    "Weights",
    "architecture",
    "architectures",
    "check_weights",
    "model_from_checkpoint",
    "model_from_config",
    "model_on_meta",
    "weight_map",
]


def architectures() -> list[str]:
    """The supported model types, sorted."""
    found = (module.name for module in pkgutil.iter_modules(edgekit.models.__path__))
    return sorted(name for name in found if name != "registry" and not name.startswith("_"))


def architecture(model_type: str) -> ModuleType:
    """The module with `Config` and `Model` of that model type; ModelError lists the supported ones."""
    if model_type not in architectures():
        raise ModelError(
            f"The model_type must be one of {', '.join(architectures())}.",
            f"The configuration says {model_type!r}.",
            "This architecture is not supported.",
        )
    return import_module(f"edgekit.models.{model_type}")


def model_from_config(config: dict[str, Any], max_positions: int | None = None) -> Decoder:
    """A model in eval mode with untrained weights, on the device (or in the fake mode) that is current.

    Args:
        config: a Hugging Face config.json.
        max_positions: rows of the rotary tables; None for the model's own limit, at most
            `edgekit.layers.decoder.DEFAULT_POSITION_LIMIT`.

    Raises:
        ModelError: unknown architecture or a value it does not support.
    """
    if isinstance(config.get("text_config"), dict):
        raise ModelError(
            "The model must be a text-only decoder.",
            f"The configuration of {config.get('model_type')!r} describes a multimodal model (it has a text_config).",
            f"Take the text-only checkpoint ({config['text_config'].get('model_type', 'its text_config')}).",
        )
    module = architecture(str(config.get("model_type")))
    model: Decoder = module.Model(module.Config.from_dict(config), max_positions)
    return model.eval().requires_grad_(False)


def model_on_meta(config: dict[str, Any], max_positions: int | None = None) -> Decoder:
    """As `model_from_config`, on the meta device: shapes and names without memory."""
    with torch.device("meta"):
        return model_from_config(config, max_positions)


def weight_map(model: Decoder | dict[str, Any]) -> dict[str, WeightSource]:
    """Per parameter of a model (or of a configuration's model) the checkpoint tensor it comes from."""
    return weight_sources(model if isinstance(model, Decoder) else model_on_meta(model))


def model_from_checkpoint(
    checkpoint: Weights, dtype: torch.dtype = torch.float32, max_positions: int | None = None
) -> Decoder:
    """The checkpoint's model with its weights as `dtype` on the CPU, in eval mode.

    Holds at most one copy of the model and one more tensor.

    Raises:
        ModelError: unknown architecture; a weight that is missing, unexpected or of the wrong shape.
    """
    model = model_on_meta(checkpoint.config, max_positions)
    check_weights(model, checkpoint)
    assign_weights(model, checkpoint, dtype)
    return model
