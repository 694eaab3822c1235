"""Truncated singular value decomposition, factors in float16: the plainest of baselines."""

from __future__ import annotations

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.factors import pair_bytes, pair_within
from edgekit.compress.saten.request import Request, too_small
from edgekit.compress.saten.storage import FLOAT
from edgekit.compress.saten.whitening import Metric, metric

READS = ("factors",)

NAME = "svd"


def fit(request: Request) -> CompressedMatrix:
    """Nearest in ‖ΔW‖_F."""
    return pair_only(request, NAME, metric(request.weight))


def pair_only(request: Request, name: str, fitted_in: Metric) -> CompressedMatrix:
    """Low rank that fills the budget, fitted in one metric and measured in the request's."""
    dtype, block = request.settings.factors or FLOAT, request.settings.block
    pair = pair_within(request.weight, fitted_in, request.budget, dtype, block)
    if pair is None:
        raise too_small(request, "rank 1", pair_bytes(request.shape, 1, dtype, block))
    return request.made(name, [pair])
