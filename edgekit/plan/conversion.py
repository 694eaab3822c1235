"""What `edgekit convert --attention tpa --cache-ratio X` would make of a model's sizes."""

from __future__ import annotations

from dataclasses import replace

from edgekit.errors import ModelError
from edgekit.plan.model_sizes import LayerCache, Matrix, ModelSizes

#: The converter's components come in such steps (`edgekit.compress.attention.allocate.STEP`).
STEP = 8
#: Those whose keys are a linear function of the layer's input and whose layers see all of the context.
CONVERTIBLE = ("llama", "mistral", "qwen2")


def is_convertible(sizes: ModelSizes) -> bool:
    """Whether `edgekit convert` takes the model."""
    return sizes.model_type in CONVERTIBLE and all(cache.window <= 0 for cache in sizes.caches)


def converted(sizes: ModelSizes, ratio: float) -> ModelSizes:
    """The model with latent keys and values of `ratio` times its cache, the same in every layer.

    The converter spreads the same bytes by measured loss, and may choose spectral keys, which need no rebuilding: the
    cache comes out alike, the weights within a few per cent, and a step's arithmetic at most as large.

    Raises:
        ModelError: the model cannot be converted, or the ratio is not between 0 and 1.
    """
    if not is_convertible(sizes):
        raise ModelError(
            f"only {', '.join(CONVERTIBLE)} without sliding windows can be converted to tensor product attention",
            f"this is a {sizes.model_type}" + ("" if sizes.model_type not in CONVERTIBLE else " with windows"),
            "leave --attention out",
        )
    if not 0 < ratio <= 1:
        raise ModelError("a cache ratio is above 0 and at most 1", f"it is {ratio:g}", "choose, for example, 0.5")
    hidden, heads, dim, layers = sizes.hidden_size, sizes.heads, sizes.head_dim, sizes.layers
    keys = sizes.kv_heads * dim
    rank = max(STEP, round(ratio * keys / STEP) * STEP)
    others = [matrix for matrix in sizes.matrices if matrix.role != "key_value"]
    macs = rank * keys + heads * dim + heads * rank
    return replace(
        sizes,
        model_type="llama_tpa",
        matrices=(*others, Matrix("key_value", rank, hidden, 2 * layers)),
        # k_up [rank, keys], k_bias [keys], v_up [heads, dim, rank], a_v [1, heads]
        unquantised=sizes.unquantised + layers * (rank * keys + keys + heads * dim * rank + heads),
        caches=(LayerCache(2 * rank, -1, macs),) * layers,
        cache_in_place=True,
        query_rows=heads,
    )
