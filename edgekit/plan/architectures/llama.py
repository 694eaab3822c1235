"""Llama (SmolLM2, Llama 2 and 3)."""

from __future__ import annotations

from typing import Any

from edgekit.plan.architectures._decoder import common, grouped_query
from edgekit.plan.architectures._fields import Fields
from edgekit.plan.model_sizes import ModelSizes


def sizes(config: dict[str, Any]) -> ModelSizes:
    """Sizes of a Llama."""
    fields = Fields(config)
    base = common(fields, tied=False)
    bias = fields.flag("attention_bias", False)
    windows = [-1] * base["layers"]
    return grouped_query(
        base, windows=windows, qkv_bias=bias, output_bias=bias, mlp_bias=fields.flag("mlp_bias", False)
    )
