"""Low rank in a metric: the pair A [in, r], B [r, out] that brings (A B)ᵀ nearest to W [out, in], and its storage.

With T = diag(√g) W C (C Cᵀ = M, whitening after SVD-LLM, arXiv 2403.07378), truncating T's singular values is optimal
(Eckart–Young). Projections do it without undoing both sides: on the outputs' side Ŵ = diag(1/√g) U Uᵀ diag(√g) W for
the r leading left singular vectors U of T, on the inputs' side Ŵ = W C V Vᵀ C⁻¹.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.compress.blockwise import Floats
from edgekit.compress.gptq import gptq_quantize
from edgekit.compress.saten.pieces import Pair
from edgekit.compress.saten.storage import CODES, FLOAT, Stored, stored, stored_codes
from edgekit.compress.saten.whitening import Metric

Factors = tuple[Tensor, Tensor]


def nearest_pair(weight: Tensor, rank: int, metric: Metric) -> Factors:
    """A [in, r] and B [r, out], float64, for which the metric's square of W − (A B)ᵀ is least.

    The eigenvectors are those of the smaller side's Gram matrix, in float64: a relative error of 1e-8.
    """
    weight = weight.double()
    rooted = metric.root[:, None] * weight
    whitened = rooted @ metric.factor
    if len(weight) <= weight.shape[1]:
        left = _leading(whitened @ whitened.T, rank)
        return balanced((left.T @ rooted).T, left.T / metric.root)
    right = _leading(whitened.T @ whitened, rank)
    undone = torch.linalg.solve_triangular(metric.factor, right.T, upper=False, left=False)  # Vᵀ C⁻¹
    return balanced(undone.T, (weight @ (metric.factor @ right)).T)


def balanced(a: Tensor, b: Tensor) -> Factors:
    """The same product A B with columns of A as long as the rows of B.

    Gradients, and so √g, may be of any unit: else one factor may overflow float16, and the other lose its digits.
    """
    ratio = (b.norm(dim=1).clamp(min=1e-150) / a.norm(dim=0).clamp(min=1e-150)).sqrt()
    return a * ratio, b / ratio[:, None]


def stored_pair(weight: Tensor, factors: Factors, metric: Metric, dtype: str, block: int) -> Pair:
    """Store A and B near W: once one is rounded, the other is fitted again to it before it is rounded itself.

    Both fits are linear least squares. Rounding A [r, in] moves each row's error to columns to come by GPTQ, since
    its rows meet the inputs; B's rows are rounded with the outputs' weights. (CALDERA, arXiv 2405.18886, section 4.2,
    alternates alike.)
    """
    a, b = factors
    rank = a.shape[1]
    if dtype == FLOAT or rank == 0:
        return Pair(stored(a.T.float().numpy(), dtype, block), stored(b.float().numpy(), dtype, block))
    weight = weight.double()
    second = _stored_outputs(b, metric, dtype, block)
    for _ in range(2):
        b = torch.from_numpy(second.values()).double()
        weighed = b * metric.root.square()
        first = _stored_inputs(_solved(weighed @ b.T, weighed @ weight), metric, dtype, block)
        a = torch.from_numpy(first.values()).double()
        seen = a @ metric.damped
        second = _stored_outputs(_solved(seen @ a.T, seen @ weight.T), metric, dtype, block)
    return Pair(first, second)


def _stored_inputs(a: Tensor, metric: Metric, dtype: str, block: int) -> Stored:
    """A as rows [r, in]."""
    values = a.float().numpy()
    if values.shape[1] % block:  # a block across two rows is beyond GPTQ's grid
        return stored(values, dtype, block, _alike(metric.scale.square(), len(values)))
    quantized = gptq_quantize(values, metric.moments, CODES[dtype], block, symmetric=True, upper=metric.upper)
    return stored_codes(quantized, values.shape, dtype)


def _stored_outputs(b: Tensor, metric: Metric, dtype: str, block: int) -> Stored:
    """B as rows [r, out]."""
    return stored(b.float().numpy(), dtype, block, _alike(metric.root.square(), len(b)))


def _alike(weights: Tensor, rows: int) -> Floats:
    same: Floats = weights.float().expand(rows, -1).numpy()
    return same


def _solved(gram: Tensor, right: Tensor) -> Tensor:
    """gram⁻¹ right for a Gram matrix [r, r] that may be singular (a rounded row may be nothing)."""
    ridge = 1e-8 * gram.diagonal().mean() + 1e-150
    solution: Tensor = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), right)
    return solution


def _leading(gram: Tensor, rank: int) -> Tensor:
    """The eigenvectors (columns) of the `rank` largest eigenvalues."""
    leading: Tensor = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :rank]
    return leading
