"""T6: tensor product attention (arXiv 2501.06425), whose cache holds factors of keys and values."""

from __future__ import annotations

from typing import Any

from edgekit.plan.architectures._decoder import common, feed_forward, vocabulary
from edgekit.plan.architectures._fields import Fields
from edgekit.plan.model_sizes import LayerCache, Matrix, ModelSizes


def sizes(config: dict[str, Any]) -> ModelSizes:
    """Sizes of a T6. Per layer: factor maps H -> rank · (h or d) where a factor follows the token, else constants."""
    fields = Fields(config)
    base = common(fields, tied=True)
    hidden, heads, dim, layers = base["hidden_size"], base["heads"], base["head_dim"], base["layers"]
    dense_query = config.get("query") == "dense"
    ranks = {"k": fields.integer("key_rank"), "v": fields.integer("value_rank")}
    if not dense_query:
        ranks["q"] = fields.integer("query_rank")
    contextual, shared = config.get("contextual") or "both", fields.flag("shared_kv_b", False)
    mapped = constant = 0
    for side, width in (("a", heads), ("b", dim)):
        for name, rank in ranks.items():
            if name == "v" and side == "b" and shared:
                continue
            if contextual in ("both", side):
                mapped += rank * width
            else:
                constant += rank * width
    matrices = [Matrix("factors", mapped, hidden, layers), Matrix("output", hidden, heads * dim, layers)]
    if dense_query:
        matrices.append(Matrix("query", heads * dim, hidden, layers))
    kept = (ranks["k"] + ranks["v"]) * ((heads if contextual != "b" else 0) + (dim if contextual != "a" else 0))
    rows = ranks.get("q", 0) if contextual == "both" and not dense_query else heads
    products = rows * ranks["k"]
    macs = products * dim + heads * ranks["k"] * (rows if rows < heads else 1) + heads * ranks["v"] * dim
    norms = (2 * layers + 1) * hidden if fields.flag("norm_weights", False) else 0
    head_norms = layers * dim if fields.flag("head_norm", False) else 0
    return ModelSizes(
        **base,
        matrices=(*vocabulary(base), *matrices, *feed_forward(base)),
        unquantised=layers * constant + norms + head_norms,
        caches=(LayerCache(kept, -1, macs),) * layers,
        cache_in_place=contextual != "a",
        query_rows=rows if contextual != "a" else 0,
    )
