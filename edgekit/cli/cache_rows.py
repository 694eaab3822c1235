"""How `edgekit inspect` shows the cache of a token beside those of other attentions."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import edgekit.models
from edgekit.cache_sizes import CacheSizes, cache_numbers, key_value_sizes

#: Bytes of a cached number, by element type.
ELEMENT_BYTES = {"float16": 2, "float32": 4}

#: Set in the file of a model whose cache is not plain keys and values: the model itself then tells its size.
MARKER = "CACHE_OF_FACTORS"


def checkpoint_caches(config: dict[str, Any]) -> dict[str, dict[str, int] | None]:
    """Bytes per token in all layers by element type: of the model ("own") and of other attentions of its sizes.

    Layers with a sliding window are counted in full: they cost this much until the window is full. None where
    the configuration does not say.
    """
    sizes = _factored_sizes(config) if caches_factors(str(config.get("model_type"))) else key_value_sizes(config)
    if sizes is None:
        return dict.fromkeys(ELEMENT_BYTES)
    own, others = sizes.own, cache_numbers(sizes.layers, sizes.heads, sizes.kv_heads, sizes.head_dim)
    return {
        dtype: {"own": own * size, **{name: count * size for name, count in others.items()}}
        for dtype, size in ELEMENT_BYTES.items()
    }


def caches_factors(model_type: str) -> bool:
    """Whether the file of that model sets the marker to true; false for unknown models.

    The file is parsed and not imported, because models import torch and plain ones are described without it.
    """
    return any(isinstance(value, ast.Constant) and value.value is True for value in _assigned(model_type, MARKER))


def is_encoder(model_type: str) -> bool:
    """Whether the file of that model says that it is an encoder, which has no cache; false for unknown models."""
    return any(isinstance(value, ast.Name) and value.id == "KIND_ENCODER" for value in _assigned(model_type, "KIND"))


def _assigned(model_type: str, name: str) -> list[ast.expr]:
    """What the file of a model assigns to a name, at its top level."""
    (folder,) = edgekit.models.__path__
    found = [path for path in Path(folder).glob("*.py") if path.stem == model_type]
    return [
        node.value
        for path in found
        for node in ast.parse(path.read_bytes()).body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    ]


def _factored_sizes(config: dict[str, Any]) -> CacheSizes | None:
    from edgekit.cli.torch_needed import require_torch
    from edgekit.errors import ModelError

    require_torch("telling the size of a cache of factors")
    from edgekit.models.registry import architecture, model_on_meta

    try:
        sizes = architecture(str(config.get("model_type"))).Config.from_dict(config)
        layout = model_on_meta(config, 1).cache_layout()
    except ModelError:
        return None
    own = sum(tensor.numbers for cache in layout for tensor in cache)
    return CacheSizes(own, sizes.num_layers, sizes.num_heads, sizes.kv_heads, sizes.head_dim)


def beside(own: int, others: dict[str, int]) -> str:
    """ "11,520 bytes per token; MHA 69,120 (0.17 of it), MQA 7,680 (1.50 of it)"."""
    shares = ", ".join(f"{name} {count:,} ({own / count:.2f} of it)" for name, count in others.items() if count)
    return f"{own:,} bytes per token" + (f"; {shares}" if shares else "")
