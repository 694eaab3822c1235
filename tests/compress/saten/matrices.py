"""Matrices that have what real ones have: a low-rank part, outliers, and inputs of very different size."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.compress.saten.whitening import Metric, metric


def random(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def toy(rows: int, inputs: int, seed: int = 0) -> Tensor:
    """Low rank + noise + outliers, float64 [rows, inputs]."""
    rank = 6
    weight = random(rows, rank, seed=seed) @ random(rank, inputs, seed=seed + 1) / rank**0.5
    weight = weight + 0.6 * random(rows, inputs, seed=seed + 2)
    chosen = random(rows, inputs, seed=seed + 3) > 2.5
    return weight + 8 * chosen * random(rows, inputs, seed=seed + 4)


def moments(inputs: int, seed: int = 7) -> Tensor:
    """E[x xᵀ] of correlated inputs of very different size, float64 [inputs, inputs]."""
    mixing = random(inputs, inputs // 4, seed=seed) * random(inputs, 1, seed=seed + 1).exp()
    return mixing @ mixing.T / inputs + 0.05 * torch.eye(inputs, dtype=torch.float64)


def anisotropic(weight: Tensor) -> Metric:
    """A metric with those moments, and outputs that matter more and less."""
    return metric(weight, moments(weight.shape[1]), random(len(weight), seed=9).square())
