"""Block quantisation alone by GPTQ (arXiv 2210.17323), as it is published: what other methods are measured against."""

from __future__ import annotations

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.correction import best_of
from edgekit.compress.saten.methods.saten_augmented import base_sizes, rounded
from edgekit.compress.saten.request import Request, too_small

READS = ("base_bits", "symmetric")


def fit(request: Request) -> CompressedMatrix:
    """The best bit width and block of those that fit."""
    sizes = base_sizes(request)
    found = best_of(
        request.made("gptq", [rounded(request, request.weight, bits, block)])
        for size, bits, block in sizes
        if size <= request.budget
    )
    if found is None:
        raise too_small(request, "block quantisation", min(sizes)[0])
    return found
