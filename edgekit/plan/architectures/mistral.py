"""Mistral: a Llama whose layers may all see a sliding window."""

from __future__ import annotations

from typing import Any

from edgekit.plan.architectures._decoder import common, grouped_query
from edgekit.plan.architectures._fields import Fields
from edgekit.plan.model_sizes import ModelSizes


def sizes(config: dict[str, Any]) -> ModelSizes:
    """Sizes of a Mistral; an absent sliding_window is the first Mistral's 4096, null is none."""
    fields = Fields(config)
    base = common(fields, tied=False)
    window = fields.integer("sliding_window", -1 if "sliding_window" in config else 4096)
    return grouped_query(base, windows=[window] * base["layers"])
