"""A Llama, Mistral or Qwen2 whose attention caches static factors: what `edgekit convert --attention tpa` writes."""

from __future__ import annotations

from typing import Any

from edgekit.errors import ModelError
from edgekit.plan.architectures._decoder import common, feed_forward, vocabulary
from edgekit.plan.architectures._fields import Fields
from edgekit.plan.model_sizes import LayerCache, Matrix, ModelSizes


def sizes(config: dict[str, Any]) -> ModelSizes:
    """Sizes of a converted model, layer by layer; see `edgekit.layers.static_factors` for the structures."""
    fields = Fields(config)
    base = common(fields, tied=False)
    found = config.get("attention_factors")
    if not isinstance(found, list) or len(found) != base["layers"]:
        raise ModelError(
            f"attention_factors must have an entry for each of the {base['layers']} layers.",
            f"It has {len(found) if isinstance(found, list) else 'none'}.",
            "Convert the checkpoint again: edgekit convert.",
        )
    bias = {name: fields.flag(f"{name}_bias", False) for name in ("qkv", "output", "mlp")}
    matrices, unquantised, caches = [], base["hidden_size"], []
    for entry in found:
        layer, others, cache = _layer(base, entry, bias)
        matrices += layer
        unquantised += others
        caches.append(cache)
    return ModelSizes(
        **base,
        matrices=(*vocabulary(base), *matrices, *feed_forward(base)),
        unquantised=unquantised,
        caches=tuple(caches),
        cache_in_place=True,
        query_rows=base["heads"],
    )


def _layer(base: dict[str, Any], entry: Any, bias: dict[str, bool]) -> tuple[list[Matrix], int, LayerCache]:
    hidden, heads, dim, inner = base["hidden_size"], base["heads"], base["head_dim"], base["intermediate_size"]
    keys = base["kv_heads"] * dim
    try:
        key, value = entry["key"], entry["value"]
        k_latent, v_latent = key["structure"] == "latent", value["structure"] == "latent"
        k_rows = {"exact": base["kv_heads"], "head": key.get("rank", 0)}.get(key["structure"], 1)
        k_row = {"spectral": 2 * len(key.get("frequencies", ())), "latent": key.get("rank", 0)}.get(
            key["structure"], dim
        )
        v_rows = {"exact": base["kv_heads"], "head": value.get("rank", 0)}.get(value["structure"], 1)
        v_row = value["rank"] if v_latent else dim
        folded = bool(value.get("folded", False))
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            "attention_factors must say the structure and rank of each layer's key and value.",
            f"One entry is {entry!r}.",
            "Correct the checkpoint's config.json.",
        ) from error
    width = v_row if not v_latent or folded else dim
    matrices = [
        Matrix("query", heads * dim, hidden),
        Matrix("key_value", k_rows * k_row, hidden),
        Matrix("key_value", v_rows * v_row, hidden),
        Matrix("output", hidden, heads * width),
    ]
    others = 2 * hidden + v_rows * heads + hidden * bias["output"] + (2 * inner + hidden) * bias["mlp"]
    others += (heads * dim + v_rows * v_row + k_rows * k_row * (not k_latent)) * bias["qkv"]
    others += k_row * keys + keys if k_latent else k_rows * heads
    others += 2 * heads * len(key["frequencies"]) if key["structure"] == "spectral" else 0
    others += heads * dim * v_row if v_latent and not folded else 0
    # Latent keys are rebuilt for every cached token at each step.
    scores = k_row * keys + heads * dim if k_latent else heads * k_rows * k_row
    cache = LayerCache(k_rows * k_row + v_rows * v_row, -1, scores + heads * v_rows * v_row)
    return matrices, others, cache
