"""Qwen2 and Qwen2.5: a Llama with biases on query, key and value."""

from __future__ import annotations

from typing import Any

from edgekit.plan.architectures._decoder import common, grouped_query
from edgekit.plan.architectures._fields import Fields
from edgekit.plan.model_sizes import ModelSizes


def sizes(config: dict[str, Any]) -> ModelSizes:
    """Sizes of a Qwen2."""
    fields = Fields(config)
    base = common(fields, tied=False)
    return grouped_query(base, windows=fields.qwen_windows(base["layers"]), qkv_bias=True)
