"""The sparse part in a metric: which weights of an error [N, K] to keep, and the values that then serve best."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.compress.saten.sparse import Sparsity
from edgekit.compress.saten.whitening import Metric

#: Conjugate-gradient steps for the values: more would be finer than what they are stored with.
STEPS = 8


def scaled_mask(error: Tensor, sparsity: Sparsity, metric: Metric) -> Tensor:
    """bool [N, K]: the largest of |ΔW| √g √E[x²] (OATS, arXiv 2409.13652, section 3.2, with the outputs' weights)."""
    return sparsity.mask(error.abs() * metric.scale * metric.root[:, None])


def pursued_mask(error: Tensor, current: Tensor, sparsity: Sparsity, metric: Metric) -> Tensor:
    """bool [N, K]: a step of iterative hard thresholding (Blumensath & Davies, J. Fourier Anal. Appl. 14 (2008) 629).

    `current` [N, K] is the sparse part so far. Changing (n, k) alone lowers the metric's square most by
    d_nk = ((ΔW − S) M)_nk / M_kk: the largest of |S + d| √g √M_kk stay. Where inputs are correlated this sees that one
    weight can mend what many have caused, which |ΔW| does not show.
    """
    steepest = ((error - current) @ metric.damped) / metric.scale.square()
    return scaled_mask(current + steepest, sparsity, metric)


def fitted_values(error: Tensor, mask: Tensor, metric: Metric, steps: int = STEPS) -> Tensor:
    """S [N, K], nothing outside the mask, for which the metric's square of ΔW − S is least.

    Rows do not depend on each other: (S M)_nk = (ΔW M)_nk for the k of the mask, by conjugate gradients on all rows
    at once with M's diagonal as preconditioner, starting from ΔW itself, in its type.
    """
    inside = mask.to(error.dtype)
    moments, diagonal = metric.damped.to(error.dtype), metric.scale.square().to(error.dtype)
    found = error * inside
    rest = ((error - found) @ moments) * inside
    direction = rest / diagonal
    power = (rest * direction).sum(1)
    for _ in range(steps):
        image = (direction @ moments) * inside
        length = _ratio(power, (direction * image).sum(1))
        found = found + length * direction
        rest = rest - length * image
        scaled = rest / diagonal
        grown = (rest * scaled).sum(1)
        direction, power = scaled + _ratio(grown, power) * direction, grown
    return found


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below as a column [N, 1]; 0 where nothing is below: that row has arrived."""
    return torch.where(below > 0, above / below.clamp(min=torch.finfo(below.dtype).tiny), 0)[:, None]
