"""What multiplies by a compressed matrix's base of few bits: the operator that adds its corrections, or a product."""

from __future__ import annotations

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.cost import seconds
from edgekit.compress.saten.operator import base_problem
from edgekit.compress.saten.pieces import Base
from edgekit.export.options import BASE_AUTO, BASE_OPERATOR, BASE_PRODUCTS, ExportOptions

#: What the model may be wrong by, and fewer bytes are worth where the weights do not stay in a cache.
LONGER = 1.1


def why_products(matrix: CompressedMatrix, options: ExportOptions) -> str | None:
    """Why a matrix's base becomes a product of its own (MatMulNBits); None where edgekit::TTSparseLinear reads it.

    The rule of "auto": the operator, where it reads the base as it is stored and the cost model
    (`edgekit.compress.saten.cost`, measured on one CPU) expects one token to take at most LONGER times as long.
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
    slower = seconds(matrix) > LONGER * seconds(matrix, products=True)
    return "the cost model expects the operator to take longer" if slower else None
