"""Block quantisation alone, as good as codes get here: GPTQ, then coordinate descent over codes and scales."""

from __future__ import annotations

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.correction import best_of
from edgekit.compress.saten.methods.saten_augmented import base_sizes, rounded
from edgekit.compress.saten.request import Request, too_small

READS = ("base_bits", "symmetric")

#: How many of the largest bases that fit are tried.
BASES = 2


def fit(request: Request) -> CompressedMatrix:
    """The best bit width and block of those that fit."""
    sizes = base_sizes(request)
    sweeps = request.settings.rounds
    found = best_of(
        request.made("dense", [rounded(request, request.weight, bits, block, sweeps)])
        for size, bits, block in sorted((size for size in sizes if size[0] <= request.budget), reverse=True)[:BASES]
    )
    if found is None:
        raise too_small(request, "block quantisation", min(sizes)[0])
    return found
