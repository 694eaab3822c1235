"""Gemma 3, text only: norms on both sides of each sublayer, local layers with a window and their own rotary tables."""

from __future__ import annotations

from typing import Any

from edgekit.plan.architectures._decoder import common, grouped_query
from edgekit.plan.architectures._fields import Fields
from edgekit.plan.model_sizes import ModelSizes


def sizes(config: dict[str, Any]) -> ModelSizes:
    """Sizes of a Gemma 3."""
    fields = Fields(config)
    base = common(fields, tied=True, head_dim=256)
    pattern, window = fields.integer("sliding_window_pattern", 6), fields.integer("sliding_window", 4096)
    sliding = fields.sliding(base["layers"], [bool((i + 1) % pattern) for i in range(base["layers"])])
    bias = fields.flag("attention_bias", False)
    return grouped_query(
        base,
        windows=[window if slides else -1 for slides in sliding],
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
        norms=4,
        rotary_tables=2,
    )
