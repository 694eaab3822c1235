"""The base of `edgekit::TTSparseLinear` from codes, scales and zero points: the same bits, in the operator's order."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.ops.spec import OperatorError
from edgekit.ops.specs.tt_sparse_linear import BASES, CHUNK, MOST_BLOCK, TILE

Array = np.ndarray[Any, np.dtype[Any]]


def base_operands(codes: Array, scales: Array, zero_points: Array | None, bits: int) -> dict[str, Array]:
    """The operands `base`, `base_scales` and, where there are zero points, `base_zeros`.

    Args:
        codes: unsigned [O, blocks, block].
        scales: [O, blocks], as float16 holds them.
        zero_points: unsigned [O, blocks]; None where all are 2^(bits-1).
        bits: of a code.

    Raises:
        OperatorError: other bits than 2, 3 or 4, or blocks of other than 32, 64, … 384 inputs.
    """
    outputs, blocks, block = codes.shape
    if bits not in BASES or block % CHUNK or not 0 < block <= MOST_BLOCK:
        raise OperatorError(
            f"a base has codes of {', '.join(map(str, BASES))} bits in blocks of a multiple of {CHUNK} inputs, at most"
            f" {MOST_BLOCK}",
            f"there are {bits} bits and blocks of {block}",
        )
    tiles = -(-outputs // TILE)
    filled = _filled(codes, tiles).reshape(tiles, TILE, blocks * block // CHUNK, CHUNK)
    found = {
        "base": _words(filled.astype(np.uint8), bits),
        "base_scales": _by_tile(scales.astype(np.float16), tiles).reshape(-1),
    }
    if zero_points is None:
        return found
    of_tiles = _by_tile(zero_points.astype(np.uint16), tiles)
    planes = of_tiles[:, :, None] >> np.arange(bits, dtype=np.uint16)[:, None] & 1
    halves = (planes << np.arange(TILE, dtype=np.uint16)).sum(-1, dtype=np.uint16).reshape(-1)
    padded = np.pad(halves, (0, len(halves) % 2)).astype("<u2")
    return found | {"base_zeros": padded.view("<i4").astype(np.int32, copy=False)}


def _filled(rows: Array, tiles: int) -> Array:
    return np.pad(rows, ((0, tiles * TILE - len(rows)), *((0, 0),) * (rows.ndim - 1)))


def _by_tile(numbers: Array, tiles: int) -> Array:
    """[tiles, blocks, TILE] of [O, blocks]."""
    return _filled(numbers, tiles).reshape(tiles, TILE, -1).transpose(0, 2, 1)


def _words(codes: Array, bits: int) -> Array:
    """int32 words, by tile, chunk, word and row, of codes [tiles, TILE, chunks, CHUNK]."""
    fours = codes.reshape(*codes.shape[:3], CHUNK // 4, 4)  # of each, code b goes to byte b
    made: Array = np.zeros((*codes.shape[:3], bits, 4), np.uint8)
    per_byte = 8 // bits
    for field in range(per_byte):
        made |= fours[:, :, :, field : bits * per_byte : per_byte] << np.uint8(bits * field)
    if bits == 3:
        rest = fours[:, :, :, 6:]
        made[:, :, :, :2] |= (rest & 3) << 6
        third: Array = rest >> 2
        made[:, :, :, 2] |= third[:, :, :, 0] << 6 | third[:, :, :, 1] << 7
    ordered: Array = np.ascontiguousarray(made.transpose(0, 2, 3, 1, 4))
    return ordered.view("<i4").reshape(-1).astype(np.int32, copy=False)
