"""How many numbers other attentions of the same size would keep of each token, to judge a cache by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Query heads per key head in the grouped attention that a model without groups of its own is compared with.
_USUAL_GROUP = 4


def cache_numbers(layers: int, heads: int, kv_heads: int, head_dim: int) -> dict[str, int]:
    """Numbers per token, in all layers, of multi-head, grouped-query and multi-query attention.

    Args:
        kv_heads: the model's own key heads; where it has as many as query heads (or fewer than two), the grouped form
            has a quarter as many as query heads, rounded half up, and at least two where there are two heads.
    """
    groups = kv_heads if 1 < kv_heads < heads else _usual_groups(heads)
    table = {"MHA": heads, f"GQA with {groups} key head{'' if groups == 1 else 's'}": groups, "MQA": 1}
    return {name: 2 * layers * count * head_dim for name, count in table.items()}


def _usual_groups(heads: int) -> int:
    # No divisor is looked for: with a prime number of heads none is near, and sizes are compared, not models.
    return min(heads, max(2, (heads + _USUAL_GROUP // 2) // _USUAL_GROUP))


@dataclass(frozen=True)
class CacheSizes:
    """Numbers that a model keeps per token in all layers, and the sizes that others are derived from."""

    own: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int


def key_value_sizes(config: dict[str, Any]) -> CacheSizes | None:
    """The cache of keys and values that a Hugging Face config.json describes; None where it does not say."""
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim, hidden = config.get("head_dim"), config.get("hidden_size")
    if not head_dim and isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        head_dim = hidden // heads
    if not isinstance(layers, int) or not isinstance(kv_heads, int) or not isinstance(head_dim, int):
        return None
    if not isinstance(heads, int) or heads < 1:
        return None
    return CacheSizes(2 * layers * kv_heads * head_dim, layers, heads, kv_heads, head_dim)
