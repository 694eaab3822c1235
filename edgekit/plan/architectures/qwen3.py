"""Qwen3: a Llama that normalises each head's query and key."""

from __future__ import annotations

from typing import Any

from edgekit.plan.architectures._decoder import common, grouped_query
from edgekit.plan.architectures._fields import Fields
from edgekit.plan.model_sizes import ModelSizes


def sizes(config: dict[str, Any]) -> ModelSizes:
    """Sizes of a Qwen3."""
    fields = Fields(config)
    base = common(fields, tied=False, head_dim=128)
    bias, windows = fields.flag("attention_bias", False), fields.qwen_windows(base["layers"])
    return grouped_query(base, windows=windows, qkv_bias=bias, output_bias=bias, qk_norm=True)
