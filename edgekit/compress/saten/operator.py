"""A compressed matrix as an `edgekit::TTSparseLinear`: the bytes of its arrays, as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.compress.blockwise import Floats
from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.pieces import Base, Pair, Train
from edgekit.compress.saten.sparse_format import Positions, Sparse
from edgekit.compress.saten.storage import CODES, FLOAT, Arrays, Stored, stored
from edgekit.errors import ExportError
from edgekit.ops.specs.tt_sparse_linear import (
    BASES,
    BITMAP,
    CHUNK,
    COLUMNS,
    GROUP,
    GROUPS,
    HALF,
    MOST_BLOCK,
    MOST_INPUTS,
    NOTHING,
    ROUNDED,
    SPEC,
)
from edgekit.ops.specs.tt_sparse_linear import CODES as CODE_BITS
from edgekit.ops.tt_sparse_base import base_operands
from edgekit.ops.tt_sparse_rows import positions, starts, words

#: Blocks of scales that kernels read.
BLOCK_MULTIPLE = 16


def operator_inputs(
    matrix: CompressedMatrix, bias: Floats | None = None, *, base: bool = False
) -> tuple[dict[str, int], Arrays]:
    """Attributes and inputs (but x) of the operator that multiplies by a matrix.

    Codes, scales, 16-bit values, columns, bitmaps and 2:4 places are the stored bytes, in words of 32 bits. Made here:
    the row starts (4 bytes per output in the place of counts of 2), a train's contracted pair in float16, and bitmaps
    or columns of patterns that the operator does not read (whole rows, blocks, groups of other than 4). A base keeps
    its bits in another order, filled up to a multiple of 16 outputs; zero points that are all 2^(bits-1) are left
    out. Kernels may round what it multiplies to 16 bits.

    Args:
        bias: float32 [N], or None.
        base: whether the matrix's base is one of the operands; without it the operator multiplies by the rest.

    Raises:
        ExportError: nothing to multiply by is there, factors or values are of 2 or 3 bits, or a scale's block is one
            that the operator does not read.
    """
    pair, sparse, codes = _pair(matrix), _only(matrix, Sparse), _only(matrix, Base) if base else None
    if pair is None and sparse is None and codes is None:
        raise ExportError(
            "edgekit::TTSparseLinear multiplies by low rank and a sparse part",
            f"{matrix.method} made neither of this matrix",
            "multiply by its base alone",
        )
    attributes = {"out_features": matrix.shape[0], "low_rank": int(pair is not None), "bias": int(bias is not None)}
    found: Arrays = {}
    if pair is not None:
        attributes |= {"rank": pair.rank} | _numbers("factor", pair.inputs)
        if (pair.inputs.dtype, pair.inputs.block) != (pair.outputs.dtype, pair.outputs.block):
            raise ExportError(
                "both factors are stored alike", f"{pair.inputs.dtype} and {pair.outputs.dtype}", "store them alike"
            )
        found |= _arrays("a", "a_scales", pair.inputs) | _arrays("b", "b_scales", pair.outputs)
    if sparse is not None:
        residual, where = _positions(sparse.positions)
        attributes |= residual | {"entries": int(np.prod(sparse.values.shape))} | _numbers("value", sparse.values)
        found |= where | _arrays("values", "value_scales", sparse.values)
    if codes is not None:
        of_base, operands = _base(codes)
        attributes |= of_base
        found |= operands
    if bias is not None:
        found["bias"] = bias.astype(np.float32)
    return SPEC.complete({"residual": NOTHING} | attributes), found


def _pair(matrix: CompressedMatrix) -> Pair | None:
    """The pair of a matrix, contracted where it is a train's."""
    train = _only(matrix, Train)
    if train is None:
        found: Pair | None = _only(matrix, Pair)
        return found
    left, right = train.train().pair()
    a, b = (half.float().contiguous().numpy() for half in (left.T, right))
    return Pair(stored(a, FLOAT), stored(b, FLOAT))


def _only(matrix: CompressedMatrix, kind: type[Any]) -> Any:
    found = [piece for piece in matrix.pieces if isinstance(piece, kind)]
    if len(found) > 1 or not all(isinstance(piece, (Base, Pair, Train, Sparse)) for piece in matrix.pieces):
        kinds = ", ".join(type(piece).__name__ for piece in matrix.pieces)
        raise ExportError("a matrix has one base, one pair or train and one sparse part", kinds, "report this")
    return found[0] if found else None


def _numbers(what: str, store: Stored) -> dict[str, int]:
    if store.dtype == FLOAT:
        return {f"{what}_bits": HALF}
    bits = CODES[store.dtype]
    if bits not in CODE_BITS or store.block % BLOCK_MULTIPLE:
        raise ExportError(
            f"edgekit::TTSparseLinear reads float16, int8 and int4 with scales of blocks of {BLOCK_MULTIPLE} or"
            " multiples",
            f"{store.dtype} with blocks of {store.block} is stored",
            "choose other factors and values",
        )
    return {f"{what}_bits": bits, f"{what}_block": store.block}


def _arrays(name: str, scales: str, store: Stored) -> Arrays:
    if store.dtype == FLOAT:
        return {name: store.arrays["values"].reshape(store.shape)}
    return {name: words(store.arrays["codes"]), scales: store.arrays["scales"]}


def base_problem(base: Base) -> str | None:
    """Why the operator does not read a base as it is stored; None where it does."""
    bits, block = base.quantized.bits, base.quantized.codes.shape[2]
    if bits in BASES and block % CHUNK == 0 and block <= MOST_BLOCK and base.quantized.offsets is None:
        return None
    return f"its codes have {bits} bits in blocks of {block}"


def _base(base: Base) -> tuple[dict[str, int], Arrays]:
    found = base.quantized
    problem = base_problem(base)
    if problem is not None:
        raise ExportError(
            f"a base of edgekit::TTSparseLinear has codes of {', '.join(map(str, BASES))} bits in blocks of a multiple"
            f" of {CHUNK} inputs, at most {MOST_BLOCK}",
            problem,
            "export it with --base products, or compress the model with another --base-bits",
        )
    zeros = None if (found.zero_points == 2 ** (found.bits - 1)).all() else found.zero_points
    attributes = {"base_bits": found.bits, "base_block": found.codes.shape[2], "zero_points": int(zeros is not None)}
    attributes |= {"input_bits": ROUNDED}
    return attributes, base_operands(found.codes, found.scales, zeros, found.bits)


def _positions(found: Positions) -> tuple[dict[str, int], Arrays]:
    """The attributes of the residual and the operands that say where it is."""
    if found.format == "groups" and found.group[1] == GROUP:
        return {"residual": GROUPS, "group_kept": found.group[0]}, {"positions": words(found.arrays["places"])}
    if found.format == "columns":
        counts = found.arrays["counts"].astype(np.int64)
        return {"residual": COLUMNS}, {"starts": starts(counts), "positions": words(found.arrays["columns"])}
    mask = found.mask()
    if found.format == "bitmap":
        return {"residual": BITMAP}, {"starts": starts(mask.sum(1)), "positions": words(found.arrays["bits"])}
    few = 16 * int(mask.sum()) < mask.size and mask.shape[1] <= MOST_INPUTS
    residual = COLUMNS if few else BITMAP
    return {"residual": residual}, positions(mask, residual)
