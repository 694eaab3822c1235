"""Sizes of decoders with grouped-query attention and a gated feed-forward layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.plan.architectures._fields import Fields, field_error
from edgekit.plan.model_sizes import EMBEDDING, HEAD, LayerCache, Matrix, ModelSizes


def common(fields: Fields, *, tied: bool, head_dim: int | None = None) -> dict[str, Any]:
    """The fields of `ModelSizes` that every configuration spells alike.

    Args:
        tied: the architecture's default of tie_word_embeddings.
        head_dim: the architecture's default; None for hidden_size / num_attention_heads.
    """
    hidden, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    kv_heads = fields.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise field_error(
            "num_key_value_heads", "must divide num_attention_heads", f"{heads} / {kv_heads} is not whole."
        )
    return {
        "model_type": "",
        "layers": fields.integer("num_hidden_layers"),
        "hidden_size": hidden,
        "intermediate_size": fields.integer("intermediate_size"),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": fields.integer("head_dim", head_dim or max(1, hidden // heads)),
        "vocab_size": fields.integer("vocab_size"),
        "max_position_embeddings": fields.integer("max_position_embeddings"),
        "tied": fields.flag("tie_word_embeddings", tied),
    }


def vocabulary(base: dict[str, Any]) -> tuple[Matrix, ...]:
    """The embedding and, where it is not tied, the head."""
    embedding = Matrix(EMBEDDING, base["vocab_size"], base["hidden_size"])
    return (embedding,) if base["tied"] else (embedding, Matrix(HEAD, embedding.outputs, embedding.inputs))


def feed_forward(base: dict[str, Any]) -> tuple[Matrix, ...]:
    """Gate, up and down of all layers."""
    hidden, inner, layers = base["hidden_size"], base["intermediate_size"], base["layers"]
    return Matrix("gate_up", inner, hidden, 2 * layers), Matrix("down", hidden, inner, layers)


def grouped_query(
    base: dict[str, Any],
    *,
    windows: Sequence[int],
    qkv_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
    norms: int = 2,
    rotary_tables: int = 1,
) -> ModelSizes:
    """A decoder of L equal layers but for their windows; `norms` of size H in each."""
    hidden, inner, layers = base["hidden_size"], base["intermediate_size"], base["layers"]
    query, key = base["heads"] * base["head_dim"], base["kv_heads"] * base["head_dim"]
    per_layer = norms * hidden
    per_layer += (query + 2 * key) * qkv_bias + hidden * output_bias + (2 * inner + hidden) * mlp_bias
    per_layer += 2 * base["head_dim"] * qk_norm
    attention = (
        Matrix("query", query, hidden, layers),
        Matrix("key_value", key, hidden, 2 * layers),
        Matrix("output", hidden, query, layers),
    )
    return ModelSizes(
        **base,
        matrices=(*vocabulary(base), *attention, *feed_forward(base)),
        unquantised=layers * per_layer + hidden,
        caches=tuple(LayerCache(2 * key, window, 2 * query) for window in windows),
        rotary_tables=rotary_tables,
    )
