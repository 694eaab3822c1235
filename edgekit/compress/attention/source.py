"""What can be converted, and the attention weights of one of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.errors import ModelError
from edgekit.models.registry import Weights, architecture

#: What config.json of the converted model says beside what the source's says, by the source's model_type.
_BIASES: dict[str, dict[str, bool]] = {
    "mistral": {"qkv_bias": False, "output_bias": False, "mlp_bias": False},
    "qwen2": {"qkv_bias": True, "output_bias": False, "mlp_bias": False},
}
CONVERTED = "llama_tpa"


@dataclass(frozen=True)
class SourceShape:
    """Sizes of the source's attention."""

    layers: int
    hidden: int
    heads: int
    groups: int
    head_dim: int

    @property
    def share(self) -> int:
        """Query heads per key/value head."""
        return self.heads // self.groups

    @property
    def numbers(self) -> int:
        """Numbers in one layer's cache per token."""
        return 2 * self.groups * self.head_dim

    def group(self, head: int) -> int:
        """The key/value head that a query head reads."""
        return head // self.share


@dataclass(frozen=True)
class LayerWeights:
    """One layer's projections, float64: query [H, D, hidden], key and value [G, D, hidden], output [hidden, H, D];
    biases [H, D], [G, D], [G, D] or None."""

    shape: SourceShape
    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    key_bias: Tensor | None
    value_bias: Tensor | None


def source_shape(config: dict[str, Any]) -> SourceShape:
    """The sizes; ModelError for a model whose attention cannot be converted, with the reason."""
    model_type = str(config.get("model_type"))
    rule = "A model to convert must be a Llama, a Mistral without window or a Qwen2 without window."
    if model_type == CONVERTED:
        raise ModelError(
            rule, "This one is converted already.", "Convert the model that it was made from, with other options."
        )
    if model_type in ("qwen3", "gemma3_text"):
        raise ModelError(
            rule,
            f"{model_type} normalises each head's keys: they are not linear in the layer's input.",
            "Mixed heads cannot reproduce that; choose another model.",
        )
    if model_type not in ("llama", *_BIASES):
        raise ModelError(rule, f"Its model_type is {model_type!r}.", "Choose another model.")
    fields = architecture(model_type).Config.from_dict(config)
    windows = getattr(fields, "windows", ()) or ((fields.window,) if hasattr(fields, "window") else ())
    if any(window > 0 for window in windows):
        raise ModelError(
            rule,
            f"Its layers see a window of {max(windows)} tokens.",
            "Set sliding_window to null in config.json if the context stays below it.",
        )
    return SourceShape(fields.num_layers, fields.hidden_size, fields.num_heads, fields.kv_heads, fields.head_dim)


def converted_config(config: dict[str, Any], factors: list[dict[str, Any]]) -> dict[str, Any]:
    """config.json of the converted model."""
    model_type = str(config["model_type"])
    biases = _BIASES.get(model_type) or {
        "qkv_bias": bool(config.get("attention_bias") or False),
        "output_bias": bool(config.get("attention_bias") or False),
        "mlp_bias": bool(config.get("mlp_bias") or False),
    }
    return {
        **config,
        "model_type": CONVERTED,
        "architectures": ["EdgekitLlamaTPA"],
        "source_model_type": model_type,
        **biases,
        "attention_factors": factors,
    }


def prefix(layer: int) -> str:
    """Where the tensors of a layer's attention stand."""
    return f"model.layers.{layer}.self_attn."


def layer_weights(checkpoint: Weights, layer: int, shape: SourceShape) -> LayerWeights:
    """The projections of a layer."""
    names, start = set(checkpoint.names()), prefix(layer)

    def read(name: str, *sizes: int) -> Tensor:
        array = np.array(checkpoint.array(start + name), dtype=np.float64)
        return torch.from_numpy(array).reshape(sizes)

    def bias(name: str) -> Tensor | None:
        return read(name, shape.groups, shape.head_dim) if start + name in names else None

    groups, heads, size = shape.groups, shape.heads, shape.head_dim
    return LayerWeights(
        shape,
        read("q_proj.weight", heads, size, shape.hidden),
        read("k_proj.weight", groups, size, shape.hidden),
        read("v_proj.weight", groups, size, shape.hidden),
        read("o_proj.weight", shape.hidden, heads, size),
        bias("k_proj.bias"),
        bias("v_proj.bias"),
    )
