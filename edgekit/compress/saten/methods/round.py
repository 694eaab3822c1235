"""Rounding each weight to the nearest code (int-b), blind to activations: the plainest quantisation there is."""

from __future__ import annotations

from edgekit.compress.blockwise import Floats, quantize_blocks
from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.correction import best_of
from edgekit.compress.saten.methods.saten_augmented import base_sizes
from edgekit.compress.saten.pieces import Base, base
from edgekit.compress.saten.request import Request, too_small

READS = ("base_bits", "symmetric")


def _base(weight: Floats, bits: int, block: int, symmetric: bool) -> Base:
    return base(quantize_blocks(weight, bits, block, symmetric=symmetric, positive=symmetric))


def fit(request: Request) -> CompressedMatrix:
    """The best bit width and block of those that fit; scales by least squares (`blockwise`)."""
    sizes = base_sizes(request)
    weight, symmetric = request.weight.float().numpy(), request.settings.symmetric
    found = best_of(
        request.made("round", [_base(weight, bits, block, symmetric)])
        for size, bits, block in sizes
        if size <= request.budget
    )
    if found is None:
        raise too_small(request, "block quantisation", min(sizes)[0])
    return found
