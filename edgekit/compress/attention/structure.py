"""What a structure of keys or values must offer, and how one is found.

Letters: H heads, G key/value heads, D head size, N = G * D; a component is what a rank counts (a mixed head, a rotary
pair, a number of a latent).
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any, Protocol

from torch import Tensor

import edgekit.compress.attention.structures as folder
from edgekit.compress.attention.source import LayerWeights
from edgekit.compress.attention.statistics import LayerStatistics
from edgekit.errors import ModelError

Tensors = dict[str, Tensor]


class Structure(Protocol):
    """One structure of keys, or of values."""

    #: Numbers in the cache per token and component, given the head size.
    def numbers(self, head_dim: int) -> int: ...

    def losses(self, weights: LayerWeights, statistics: LayerStatistics) -> Tensor:
        """Expected loss in nats per token of leaving out each component, float64, largest first."""

    def convert(
        self, weights: LayerWeights, statistics: LayerStatistics, count: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The layer's entry in config.json and its tensors by name within self_attn, with `count` components."""


def structures(side: str) -> list[str]:
    """Names of the structures of that side ("key" or "value"), sorted."""
    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    return [name for name in names if hasattr(import_module(f"{folder.__name__}.{name}"), side.upper())]


def structure(side: str, name: str) -> Structure:
    """The structure of that name; ModelError lists the known ones."""
    if name not in structures(side):
        raise ModelError(
            f"The structure of a {side} must be one of {', '.join(structures(side))}.",
            f"{name!r} was asked for.",
            "Choose another --structure or --value-structure.",
        )
    found: Structure = getattr(import_module(f"{folder.__name__}.{name}"), side.upper())
    return found
