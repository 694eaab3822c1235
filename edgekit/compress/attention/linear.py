"""Linear algebra that the structures share, float64."""

from __future__ import annotations

import torch
from torch import Tensor


def floored(weights: Tensor) -> Tensor:
    """Weights of a metric, none below a millionth of their mean, so that dividing by them is safe; all zero gives 1."""
    mean = weights.mean()
    return torch.ones_like(weights) if mean <= 0 else weights.clamp(min=1e-6 * mean)


def root(metric: Tensor) -> Tensor:
    """T with Tᵀ T = metric (symmetric, positive semidefinite; a millionth of the mean diagonal is added)."""
    size = len(metric)
    ridge = 1e-6 * metric.trace() / size + torch.finfo(metric.dtype).tiny
    found: Tensor = torch.linalg.cholesky(metric + ridge * torch.eye(size, dtype=metric.dtype)).T
    return found


def principal(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, largest first and none negative, and eigenvectors (columns) of a Hermitian matrix or a batch."""
    values, vectors = torch.linalg.eigh(moment)
    return values.flip(-1).clamp(min=0), vectors.flip(-1)


def unit_rms(down: Tensor, moment: Tensor) -> Tensor:
    """Factors [r] that give the rows of down @ k root mean square 1 for E[k kᵀ] = moment: latents then suit float16."""
    power = torch.einsum("rn,nm,rm->r", down, moment, down)
    return floored(power).rsqrt()
