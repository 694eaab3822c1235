"""Cases of edgekit::TTSparseLinear: each way to store factors, values and positions, odd sizes, one token and many.

Blocks and words end inside of rows wherever the sizes are odd, and what the last word has beyond the codes is set.
What fills up a base's tiles and blocks is drawn like all else, but for scales there, which are NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgekit.ops.cases._draw import Array, generator, numpy_dtype
from edgekit.ops.spec import Case
from edgekit.ops.specs.tt_sparse_linear import (
    BITMAP,
    COLUMNS,
    EXACT,
    GROUP,
    GROUPS,
    HALF,
    NOTHING,
    PLAIN,
    ROUNDED,
    SPEC,
    TILE,
)
from edgekit.ops.tt_sparse_base import base_operands
from edgekit.ops.tt_sparse_rows import packed_words, positions


@dataclass(frozen=True)
class _Sizes:
    """Batch, tokens, inputs, outputs, rank; the share of weights that the residual keeps, or how many of 4."""

    batch: int
    tokens: int
    inputs: int
    outputs: int
    rank: int = 0
    share: float = 0.0


@dataclass(frozen=True)
class _Base:
    """Bits, block, whether there are zero points, and what inputs may be rounded to."""

    bits: int = 0
    block: int = 64
    zeros: int = 0
    rounded: int = EXACT


_NO_BASE = _Base()
_NUMBERS = (PLAIN, HALF, 8, 4)


def cases() -> list[Case]:
    """Every pair of choices of the variants that may occur together, occurs."""
    return [
        _case("one-of-everything", _Sizes(1, 1, 2, 1, 1, 0.5), COLUMNS),
        _case("decode-67-to-131", _Sizes(1, 1, 67, 131, 13, 0.1), COLUMNS),
        _case("decode-256-to-192", _Sizes(1, 1, 256, 192, 32, 0.05), COLUMNS, HALF, HALF),
        _case("decode-three-sequences", _Sizes(3, 1, 129, 65, 7, 0.2), COLUMNS, PLAIN, PLAIN, bias=1),
        _case("two-tokens-rank-one", _Sizes(1, 2, 33, 70, 1, 0.3), COLUMNS, 8, 8, block=16, bias=1),
        _case("prefill-19", _Sizes(1, 19, 100, 77, 9, 0.15), COLUMNS, 4, 8, block=32),
        _case("prefill-2-by-71", _Sizes(2, 71, 61, 35, 5, 0.1), BITMAP, 4, 4, block=16, bias=1),
        _case("prefill-300", _Sizes(1, 300, 40, 9, 3, 0.2), BITMAP, 8, PLAIN),
        _case("residual-alone", _Sizes(1, 1, 95, 47, 0, 0.25), COLUMNS, PLAIN, 4, block=48),
        _case("residual-alone-prefill-37", _Sizes(1, 37, 95, 47, 0, 0.25), BITMAP),
        _case("residual-alone-with-bias", _Sizes(2, 3, 95, 47, 0, 0.25), BITMAP, PLAIN, 8, bias=1),
        _case("pair-alone", _Sizes(1, 4, 24, 18, 6), NOTHING),
        _case("pair-alone-of-codes", _Sizes(1, 1, 576, 192, 24), NOTHING, 4, bias=1),
        _case("pair-alone-of-bytes", _Sizes(1, 5, 65, 66, 5), NOTHING, 8, block=32),
        _case("pair-alone-half", _Sizes(1, 1, 70, 33, 5), NOTHING, HALF, bias=1),
        _case("nearly-full-residual", _Sizes(1, 1, 31, 20, 4, 0.9), COLUMNS, HALF, PLAIN, bias=1),
        _case("rows-without-entries", _Sizes(1, 3, 50, 40, 3, 0.01), COLUMNS, 4, 4),
        _case("bitmap-decode", _Sizes(1, 1, 192, 100, 16, 0.1), BITMAP, HALF, 8, block=32),
        _case("bitmap-nearly-full", _Sizes(1, 2, 67, 29, 3, 0.95), BITMAP, 4, HALF),
        _case("bitmap-plain", _Sizes(2, 1, 130, 37, 4, 0.2), BITMAP, PLAIN, PLAIN, bias=1),
        _case("groups-2-of-4", _Sizes(1, 1, 96, 70, 8, 2), GROUPS, 8, 8),
        _case("groups-2-of-4-prefill", _Sizes(2, 33, 68, 41, 3, 2), GROUPS, 4, 4, block=32, bias=1),
        _case("groups-1-of-4-alone", _Sizes(1, 1, 132, 35, 0, 1), GROUPS, PLAIN, HALF, bias=1),
        _case("groups-3-of-4-alone", _Sizes(1, 5, 36, 31, 0, 3), GROUPS, PLAIN, 4, block=16),
        _case("groups-of-numbers", _Sizes(1, 2, 60, 33, 4, 2), GROUPS, HALF, PLAIN),
        _case("groups-of-halves", _Sizes(1, 3, 60, 33, 4, 2), GROUPS, PLAIN, HALF),
        _case("columns-of-halves", _Sizes(1, 2, 60, 33, 4, 0.1), COLUMNS, 8, HALF),
        _case("columns-of-codes", _Sizes(1, 1, 60, 33, 4, 0.3), COLUMNS, HALF, 4, bias=1),
        _case("bitmap-of-nibbles", _Sizes(1, 3, 60, 33, 4, 0.3), BITMAP, 8, 4),
        _case("whole-blocks-of-bytes", _Sizes(1, 1, 128, 96, 11, 0.1), COLUMNS, 8, 8, block=32),
        _case("groups-of-nibbles", _Sizes(1, 1, 96, 65, 3, 2), GROUPS, 4, 4, block=48),
        _case("all-16-bits-of-a-column", _Sizes(1, 1, 65536, 3, 2, 0.002), COLUMNS, bias=1),
        _case("beyond-16-bits-of-a-column", _Sizes(1, 1, 65600, 2, 0, 0.002), BITMAP, PLAIN, 8),
        *_with_base(),
    ]


def _with_base() -> list[Case]:
    """Bases alone and with all else, each of the bits with and without zero points."""
    found = [
        _case("base-of-2-bits", _Sizes(1, 1, 64, 16), NOTHING, base=_Base(2, 32, 1)),
        _case("base-of-3-bits", _Sizes(1, 1, 96, 48), NOTHING, base=_Base(3, 32, 1)),
        _case("base-of-4-bits", _Sizes(1, 1, 128, 32), NOTHING, base=_Base(4, 64, 1), bias=1),
        _case("base-one-of-everything", _Sizes(1, 1, 1, 1), NOTHING, base=_Base(3, 32)),
        _case("base-67-to-131", _Sizes(1, 1, 67, 131), NOTHING, base=_Base(3, 32, 1), bias=1),
        _case("base-576-to-200", _Sizes(1, 1, 576, 200), NOTHING, base=_Base(3, 64, 1)),
        _case("base-300-to-37-in-blocks-of-128", _Sizes(1, 1, 300, 37), NOTHING, base=_Base(2, 128, 1)),
        _case("base-300-to-37-in-blocks-of-96", _Sizes(1, 2, 300, 37), NOTHING, base=_Base(4, 96)),
        _case("base-576-to-37-in-blocks-of-192", _Sizes(1, 3, 576, 37), NOTHING, base=_Base(3, 192, 1)),
        _case("base-800-to-35-in-blocks-of-384", _Sizes(1, 1, 800, 35, 4, 0.1), COLUMNS, base=_Base(4, 384, 1)),
        _case("base-of-16-bit-inputs", _Sizes(1, 1, 200, 77), NOTHING, base=_Base(3, 64, 1, ROUNDED), bias=1),
        _case("base-two-tokens", _Sizes(2, 1, 130, 33), NOTHING, base=_Base(2, 64), bias=1),
        _case("base-three-tokens", _Sizes(1, 3, 160, 50), NOTHING, base=_Base(3, 32)),
        _case("base-prefill-9", _Sizes(3, 3, 129, 47), NOTHING, base=_Base(4, 64, 1)),
        _case("base-prefill-71", _Sizes(1, 71, 100, 35), NOTHING, base=_Base(3, 64, 1)),
        _case("base-prefill-9-in-eights", _Sizes(1, 9, 200, 24), NOTHING, base=_Base(2, 32, 1), bias=1),
        _case("base-prefill-41-in-eights", _Sizes(1, 41, 136, 40, 3, 0.1), COLUMNS, base=_Base(3, 64, 1)),
        _case("base-prefill-70-in-eights", _Sizes(1, 70, 104, 35), NOTHING, base=_Base(4, 96)),
        _case("base-prefill-70-of-16-bit-inputs", _Sizes(1, 70, 100, 35), NOTHING, base=_Base(4, 32, 1, ROUNDED)),
    ]
    for bits in (2, 3, 4):
        for number, residual in enumerate((COLUMNS, BITMAP, GROUPS, COLUMNS, NOTHING)):
            factor, value = (_NUMBERS[(number + shift) % 4] for shift in (bits, 0))
            sizes = _Sizes(1, 1 + number, 72 + 28 * number, 20 + 9 * number, 3 + bits, 2 if residual == GROUPS else 0.1)
            base = _Base(bits, 32 if number % 2 else 64, int(bits == 3 or number == 2))
            values = {"factor": factor, "value": value if residual else PLAIN, "bias": (number + bits) % 2}
            found.append(_case(f"base-of-{bits}-beside-{number}", sizes, residual, block=32, base=base, **values))
    return found


def _case(
    name: str,
    sizes: _Sizes,
    residual: int,
    factor: int = PLAIN,
    value: int = PLAIN,
    block: int = 64,
    bias: int = 0,
    base: _Base = _NO_BASE,
) -> Case:
    flags = {"low_rank": int(sizes.rank > 0), "bias": bias, "residual": residual}
    bits = {"factor_bits": factor, "value_bits": value, "factor_block": block, "value_block": block}
    mask = _mask(name, sizes, residual)
    counts = {"out_features": sizes.outputs, "rank": sizes.rank, "entries": int(mask.sum())}
    kept = {"group_kept": int(sizes.share) if residual == GROUPS else 2}
    of_base = {"base_bits": base.bits, "zero_points": base.zeros, "base_block": base.block}
    of_base |= {"input_bits": base.rounded}
    attributes = SPEC.complete(counts | flags | bits | kept | of_base)
    return Case(name, attributes, partial(_inputs, name, sizes, attributes))


def _inputs(name: str, sizes: _Sizes, attributes: dict[str, Any], dtype: str) -> dict[str, Array]:
    draw, kind = generator(name), numpy_dtype(dtype)
    found = {"x": draw.standard_normal((sizes.batch, sizes.tokens, sizes.inputs)).astype(kind)}
    if sizes.rank:
        for factor, side, size in (("a", sizes.inputs, sizes.inputs), ("b", sizes.outputs, sizes.rank)):
            bits = attributes["factor_bits"]
            drawn = _numbers(draw, (sizes.rank, side), size**-0.5, bits, attributes["factor_block"], kind)
            found |= dict(zip((factor, f"{factor}_scales"), drawn, strict=False))
    if attributes["residual"]:
        found |= positions(_mask(name, sizes, attributes["residual"]), attributes["residual"], attributes["group_kept"])
        _set_beyond(found["positions"], _bits_of_positions(sizes, attributes))
        bits = attributes["value_bits"]
        drawn = _numbers(draw, (attributes["entries"],), 1.0, bits, attributes["value_block"], kind)
        found |= dict(zip(("values", "value_scales"), drawn, strict=False))
    if attributes["base_bits"]:
        found |= _base(draw, sizes, attributes)
    if attributes["bias"]:
        found["bias"] = draw.standard_normal(sizes.outputs).astype(kind)
    return found


def _base(draw: np.random.Generator, sizes: _Sizes, attributes: dict[str, Any]) -> dict[str, Array]:
    """Scales of either sign, one of them 0; what stands for no output is set, NaN where it may be."""
    bits, block, outputs = attributes["base_bits"], attributes["base_block"], sizes.outputs
    rows, blocks = -(-outputs // TILE) * TILE, -(-sizes.inputs // block)
    codes = draw.integers(0, 2**bits, (rows, blocks, block))
    zeros = draw.integers(0, 2**bits, (rows, blocks)) if attributes["zero_points"] else None
    scales = (draw.standard_normal((rows, blocks)) * 2.0**-bits / sizes.inputs**0.5).astype(np.float16)
    scales[outputs // 2, 0] = 0 if outputs > 1 else scales[0, 0]
    scales[outputs:] = np.nan
    found = base_operands(codes, scales, zeros, bits)
    if zeros is not None:
        _set_beyond(found["base_zeros"], rows * blocks * bits)
    return found


def _numbers(
    draw: np.random.Generator, shape: tuple[int, ...], deviation: float, bits: int, block: int, kind: np.dtype[Any]
) -> list[Array]:
    """An array; or words of codes, and scales of either sign, the first of them 0."""
    if bits in (PLAIN, HALF):
        return [(draw.standard_normal(shape) * deviation).astype(np.float16 if bits else kind)]
    count = int(np.prod(shape))
    codes = packed_words(draw.integers(0, 2**bits, count), bits)
    _set_beyond(codes, bits * count)
    scales = draw.standard_normal(-(-count // block)) * deviation / 2 ** (bits - 1)
    if len(scales) > 2:
        scales[0] = 0
    return [codes, scales.astype(np.float16)]


def _set_beyond(words: Array, bits: int) -> None:
    """Set the bits of the last word that stand for nothing."""
    if bits % 32:
        words[-1:] |= np.array([-(1 << bits % 32)], np.int32)


def _bits_of_positions(sizes: _Sizes, attributes: dict[str, Any]) -> int:
    if attributes["residual"] == BITMAP:
        return sizes.outputs * sizes.inputs
    return int(attributes["entries"]) * (16 if attributes["residual"] == COLUMNS else 2)


def _mask(name: str, sizes: _Sizes, residual: int) -> Array:
    """bool [O, K]: rows of unequal fullness with a kept last column, or as many of each group."""
    draw, shape = generator(name + " mask"), (sizes.outputs, sizes.inputs)
    if residual == NOTHING:
        return np.zeros(shape, np.bool_)
    scores = draw.random(shape)
    if residual == GROUPS:
        grouped = scores.reshape(-1, GROUP)
        return np.asarray(grouped.argsort(1).argsort(1) < sizes.share).reshape(shape)
    kept = scores < sizes.share
    kept[::2, -1] = True
    kept[:, 0] = False
    return kept
