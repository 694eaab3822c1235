"""What multiplies by a compressed matrix's base of few bits: the operator that adds its corrections, or a product."""

from __future__ import annotations

from edgekit.compress.blockwise import BlockQuantized
from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.cost import seconds
from edgekit.compress.saten.operator import base_problem
from edgekit.compress.saten.pieces import Base
from edgekit.contract import FORM_TENSORRT
from edgekit.export.options import (
    BASE_AUTO,
    BASE_OPERATOR,
    BASE_PRODUCTS,
    BLOCK_SIZES,
    TENSORRT_BLOCK_SIZES,
    ExportOptions,
)

#: What the model may be wrong by, and fewer bytes are worth where the weights do not stay in a cache.
LONGER = 1.1


def why_products(matrix: CompressedMatrix, options: ExportOptions) -> str | None:
    """Why a matrix's base becomes a product of its own (MatMulNBits, or TensorRT's); None where
    edgekit::TTSparseLinear reads it.

    The rule of "auto" in the ort form: the operator, where it reads the base as it is stored and the cost model
    (`edgekit.compress.saten.cost`, measured on one CPU) expects one token to take at most LONGER times as long. In the
    forms for TensorRT: the operator, a plugin there, for what TensorRT itself does not read. It reads codes of 4 bits
    without zero points in whole blocks (form tensorrt), where the export has codes at all.
    """
    (base,) = [piece for piece in matrix.pieces if isinstance(piece, Base)]
    problem = base_problem(base)
    if problem is not None:
        return f"{problem}, which the operator does not read"
    if options.base == BASE_PRODUCTS:
        return "products were asked for"
    if options.base == BASE_OPERATOR:
        return None
    assert options.base == BASE_AUTO
    if options.for_tensorrt:
        return "TensorRT reads its codes" if _read_by_tensorrt(base.quantized, options) else None
    slower = seconds(matrix) > LONGER * seconds(matrix, products=True)
    return "the cost model expects the operator to take longer" if slower else None


def symmetric(base: BlockQuantized, options: ExportOptions) -> bool:
    """Whether codes have no zero points, and bits and whole blocks that products of the form have."""
    block, known = base.codes.shape[2], TENSORRT_BLOCK_SIZES if options.for_tensorrt else BLOCK_SIZES
    if options.for_tensorrt and base.bits != 4:
        return False
    return base.inputs % block == 0 and block in known and bool((base.zero_points == 2 ** (base.bits - 1)).all())


def _read_by_tensorrt(base: BlockQuantized, options: ExportOptions) -> bool:
    codes = options.form == FORM_TENSORRT and options.quantization is not None
    return codes and symmetric(base, options)
