"""One matrix within a number of bytes, by a named method."""

from __future__ import annotations

from torch import Tensor

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.request import Request, Settings, method_named
from edgekit.compress.saten.whitening import Metric, metric
from edgekit.errors import ExportError


def compress_matrix(
    weight: Tensor,
    method: str,
    *,
    bits_per_weight: float | None = None,
    budget: int | None = None,
    measured: Metric | None = None,
    settings: Settings | None = None,
) -> CompressedMatrix:
    """Compress W [N out, K in].

    Args:
        weight: float32 [N, K].
        method: one of `request.method_names`.
        bits_per_weight: what may be stored, everything counted; or
        budget: the same in bytes.
        measured: the metric of its inputs and outputs; None for plain least squares.
        settings: choices beyond the method's own.

    Raises:
        ExportError: an unknown method, a budget too small for it, a shape that does not suit the sparsity, weights
            that are not a finite matrix, or not exactly one of bits_per_weight and budget.
    """
    if weight.ndim != 2 or not bool(weight.isfinite().all()):
        raise ExportError(
            "only matrices of finite weights are compressed", f"the shape is {tuple(weight.shape)}", "check the weights"
        )
    if (bits_per_weight is None) == (budget is None):
        raise ExportError("a budget is in bits per weight or in bytes", "both or neither was given", "give one")
    if budget is None:
        assert bits_per_weight is not None
        budget = int(bits_per_weight * weight.numel() / 8)
    chosen = measured if measured is not None else metric(weight)
    return method_named(method).fit(Request(weight.detach().float(), chosen, budget, settings or Settings()))
