"""What a model consists of, by role, from its config.json alone: no torch, no weights.

Letters: H hidden size, F feed-forward size, h query heads, g key/value heads, d head size, V vocabulary.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from edgekit.errors import ModelError
from edgekit.plan import architectures

EMBEDDING, HEAD = "embedding", "head"


@dataclass(frozen=True)
class Matrix:
    """`count` equal matrices [outputs, inputs]; `role` is EMBEDDING, HEAD, or the place in a layer ("query")."""

    role: str
    outputs: int
    inputs: int
    count: int = 1

    @property
    def numbers(self) -> int:
        """Weights in all of them."""
        return self.outputs * self.inputs * self.count


@dataclass(frozen=True)
class LayerCache:
    """What one layer keeps.

    Attributes:
        numbers: per token.
        window: tokens that a query sees; -1 for all.
        attend_macs: multiply-adds per query token and cached token.
    """

    numbers: int
    window: int
    attend_macs: int


@dataclass(frozen=True)
class ModelSizes:
    """A decoder in numbers.

    Attributes:
        tied: the head is the embedding, which `matrices` then hold once, as EMBEDDING.
        unquantised: weights that are no matrices of linear layers and keep the type of activations (norms, biases).
        rotary_tables: tables of cosines and of sines, each [positions, d / 2].
        caches: one per layer.
        cache_in_place: every form writes the cache in place (factors). Keys and values are where the device's TensorRT
            can; otherwise the graph makes a new, longer cache each step.
        query_rows: rows per token that the plugin `TPAAttention` rotates; 0 where there is no plugin.
    """

    model_type: str
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tied: bool
    matrices: tuple[Matrix, ...]
    unquantised: int
    caches: tuple[LayerCache, ...]
    cache_in_place: bool = False
    rotary_tables: int = 1
    query_rows: int = 0

    @property
    def parameters(self) -> int:
        """Trained numbers, a tied embedding counted once."""
        return sum(matrix.numbers for matrix in self.matrices) + self.unquantised

    @property
    def read_matrices(self) -> tuple[Matrix, ...]:
        """Matrices that every step reads in full: not an embedding of which a row is looked up."""
        return tuple(m for m in self.matrices if m.role != EMBEDDING or self.tied)

    @property
    def cache_numbers(self) -> int:
        """Numbers in the cache per token, in all layers."""
        return sum(cache.numbers for cache in self.caches)

    def cached_numbers(self, context: int) -> int:
        """Numbers in the cache of `context` tokens that a step reads: no more than the window, where there is one."""
        return sum(cache.numbers * min(context, _seen(cache, context)) for cache in self.caches)

    def attend_macs(self, context: int) -> int:
        """Multiply-adds of attention for one query token at that context."""
        return sum(cache.attend_macs * _seen(cache, context) for cache in self.caches)


def _seen(cache: LayerCache, context: int) -> int:
    return context if cache.window <= 0 else min(context, cache.window)


def planned_architectures() -> list[str]:
    """Model types whose sizes can be told, sorted."""
    found = (module.name for module in pkgutil.iter_modules(architectures.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def model_sizes(config: dict[str, Any]) -> ModelSizes:
    """The sizes that a Hugging Face style config.json describes.

    Raises:
        ModelError: unknown architecture; a field that is missing or makes no sense (it is named).
    """
    if isinstance(config.get("text_config"), dict):
        raise ModelError(
            "The model must be a text-only decoder.",
            f"The configuration of {config.get('model_type')!r} describes a multimodal model (it has a text_config).",
            f"Take the text-only checkpoint ({config['text_config'].get('model_type', 'its text_config')}).",
        )
    model_type = str(config.get("model_type"))
    if model_type not in planned_architectures():
        raise ModelError(
            f"The model_type must be one of {', '.join(planned_architectures())}.",
            f"The configuration says {model_type!r}.",
            "This architecture is not supported.",
        )
    sizes: ModelSizes = import_module(f"edgekit.plan.architectures.{model_type}").sizes(config)
    return replace(sizes, model_type=model_type)
