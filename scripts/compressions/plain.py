"""Rounding to the nearest of the codes between a block's smallest and largest weight, and nothing else.

What `round` of edgekit adds: a search for ranges and least-squares scales. The bits are shared evenly: every matrix has
the most bits that fit, with the smallest block that then fits, out of the same bases and stored in the same way.
"""

from __future__ import annotations

import numpy as np

from edgekit.compress.blockwise import BlockQuantized, Floats, blocks_of
from edgekit.compress.layerwise.options import BASE_BITS
from edgekit.compress.saten.methods.saten_augmented import possible_bases
from edgekit.compress.saten.request import Settings
from edgekit.errors import ExportError


def plain_base(shape: tuple[int, int], bits_per_weight: float) -> tuple[int, int, int]:
    """(bytes, bits, block) of a matrix [N, K]. ExportError where nothing fits."""
    allowed = bits_per_weight * shape[0] * shape[1] / 8
    bases = possible_bases(shape, Settings(base_bits=BASE_BITS["round"]))
    fitting = [base for base in bases if base[0] <= allowed]
    if not fitting:
        least = 8 * min(bases)[0] / (shape[0] * shape[1])
        raise ExportError(
            f"the smallest codes of a matrix {shape} take {least:.2f} bits per weight",
            f"{bits_per_weight:g} were asked for",
            "ask for more",
        )
    return max(fitting, key=lambda base: (base[1], -base[2]))


def plain_rounded(weight: Floats, bits: int, block: int) -> BlockQuantized:
    """W float32 [N, K] in codes; the range holds 0, which is one of the codes."""
    values, top = blocks_of(weight, block), 2**bits - 1
    low, high = np.minimum(values.min(-1), 0), np.maximum(values.max(-1), 0)
    scales = ((high - low) / np.float32(top)).astype(np.float16).astype(np.float32)
    scales = np.where(scales > 0, scales, np.float32(1))
    zeros = np.clip(np.rint(-low / scales), 0, top)
    codes = np.clip(np.rint(values / scales[..., None]) + zeros[..., None], 0, top)
    return BlockQuantized(codes.astype(np.uint8), scales, zeros.astype(np.uint8), bits, weight.shape[1])
