"""Architectures by model_type, and models from configurations and checkpoints.

An architecture is a file of this folder, named by its Hugging Face model_type, with a `Config` and a `Model`. Its model
is a decoder unless the file says `KIND = KIND_ENCODER`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

import edgekit.models
from edgekit.contract import KIND_DECODER, KIND_ENCODER
from edgekit.errors import ModelError
from edgekit.layers.decoder import Decoder
from edgekit.layers.encoder import Encoder
from edgekit.models._weights import TRANSFORMS, Weights, WeightSource, assign_weights, check_weights, weight_sources

__all__ = [
    "TRANSFORMS",
    "WeightSource",
    "Weights",
    "architecture",
    "architectures",
    "check_weights",
    "encoder_from_checkpoint",
    "encoder_on_meta",
    "kind_of",
    "model_from_checkpoint",
    "model_from_config",
    "model_on_meta",
    "weight_map",
]


def architectures(kind: str = KIND_DECODER) -> list[str]:
    """The supported model types of a kind of `edgekit.contract.KINDS`, sorted."""
    return [name for name in _names() if getattr(_module(name), "KIND", KIND_DECODER) == kind]


def _names() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(edgekit.models.__path__))
    return sorted(name for name in found if name != "registry" and not name.startswith("_"))


def _module(name: str) -> ModuleType:
    return import_module(f"edgekit.models.{name}")


def kind_of(config: dict[str, Any]) -> str:
    """What kind of model a config.json describes, one of `edgekit.contract.KINDS`; decoder for unknown ones."""
    model_type = str(config.get("model_type"))
    return KIND_ENCODER if model_type in architectures(KIND_ENCODER) else KIND_DECODER


def architecture(model_type: str, kind: str = KIND_DECODER) -> ModuleType:
    """The module with `Config` and `Model` of that model type; ModelError lists the supported ones of that kind."""
    known = architectures(kind)
    if model_type not in known:
        other = model_type in _names()
        raise ModelError(
            f"The model_type{f' of an {kind}' if kind == KIND_ENCODER else ''} must be one of {', '.join(known)}.",
            f"The configuration says {model_type!r}{', which is of another kind' if other else ''}.",
            "Encoders are for edgekit export, embed, parity and eval."
            if other
            else "This architecture is not supported.",
        )
    return _module(model_type)


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


def weight_map(model: Decoder | Encoder | dict[str, Any]) -> dict[str, WeightSource]:
    """Per parameter of a model (or of a configuration's decoder) the checkpoint tensor it comes from."""
    return weight_sources(model_on_meta(model) if isinstance(model, dict) else model)


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


def encoder_on_meta(config: dict[str, Any]) -> Encoder:
    """As `encoder_from_config`, on the meta device: shapes and names without memory."""
    with torch.device("meta"):
        return encoder_from_config(config)


def encoder_from_config(config: dict[str, Any]) -> Encoder:
    """An encoder in eval mode with untrained weights, on the device (or in the fake mode) that is current.

    Raises:
        ModelError: unknown architecture or a value it does not support.
    """
    module = architecture(str(config.get("model_type")), KIND_ENCODER)
    model: Encoder = module.Model(module.Config.from_dict(config))
    return model.eval().requires_grad_(False)


def encoder_from_checkpoint(checkpoint: Weights, dtype: torch.dtype = torch.float32) -> Encoder:
    """The checkpoint's encoder with its weights as `dtype` on the CPU, in eval mode. ModelError as
    `model_from_checkpoint`."""
    model = encoder_on_meta(checkpoint.config)
    check_weights(model, checkpoint)
    assign_weights(model, checkpoint, dtype)
    return model
