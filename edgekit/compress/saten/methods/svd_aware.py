"""Low rank that is optimal for the measured inputs and outputs (SVD-LLM, arXiv 2403.07378), factors in float16."""

from __future__ import annotations

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.methods.svd import pair_only
from edgekit.compress.saten.request import Request

READS = ("factors",)


def fit(request: Request) -> CompressedMatrix:
    """Nearest in the request's metric."""
    return pair_only(request, "svd-aware", request.metric)
