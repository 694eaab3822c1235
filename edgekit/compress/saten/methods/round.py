"""Rounding each weight to the nearest code (int-b), blind to activations: the plainest quantisation there is."""

from __future__ import annotations

from edgekit.compress.blockwise import quantize_blocks
from edgekit.compress.saten.compressed import CompressedMatrix, compressed
from edgekit.compress.saten.correction import best_of
from edgekit.compress.saten.methods.saten_augmented import base_sizes
from edgekit.compress.saten.pieces import base
from edgekit.compress.saten.request import Request, too_small


def fit(request: Request) -> CompressedMatrix:
    """The best bit width and block of those that fit; scales by least squares (`blockwise`)."""
    sizes = base_sizes(request)
    weight = request.weight.float().numpy()
    found = best_of(
        compressed("round", request.weight, request.metric, [base(quantize_blocks(weight, bits, block))])
        for size, bits, block in sizes
        if size <= request.budget
    )
    if found is None:
        raise too_small(request, "block quantisation", min(sizes)[0])
    return found
