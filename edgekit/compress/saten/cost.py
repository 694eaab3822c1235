"""How long products with a compressed matrix take on a CPU: a sum over what it consists of, fitted to measurements.

The coefficients are least squares of relative errors over the layers and shapes of docs/tt-sparse-kernels.md, which
names the command and the processor; the sum is within 8 % of a measured time on average, 30 % at most. On another
processor the proportions may serve, the seconds do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.operator import base_problem
from edgekit.compress.saten.pieces import Base, Pair, Train
from edgekit.compress.saten.sparse_format import Sparse


@dataclass(frozen=True)
class Rates:
    """Nanoseconds of one product with some tokens.

    Attributes:
        layer: per call of the operator.
        number: per number of the factors.
        row: per output of a residual.
        entry: per entry, by the format of its position.
        weight: per weight, kept or not, by that format.
        base: per weight of a base, by the bits of its codes.
        scale: per block of a base.
        product: per call of a product with codes outside of the operator (com.microsoft MatMulNBits of 4 bits).
        dense: per weight of it.
    """

    layer: float
    number: float
    row: float
    entry: Mapping[str, float]
    weight: Mapping[str, float]
    base: Mapping[int, float]
    scale: float
    product: float
    dense: float


#: By tokens; in between and beyond, times are on the line through both.
RATES = {
    1: Rates(
        layer=1023,
        number=0.044,
        row=4.8,
        entry={"columns": 0.303, "bitmap": 0.235, "groups": 0.117},
        weight={"bitmap": 0.043},
        base={2: 0.0062, 3: 0.0079, 4: 0.0086},
        scale=0.104,
        product=1270,
        dense=0.0103,
    ),
    8: Rates(
        layer=2041,
        number=0.221,
        row=10.0,
        entry={"columns": 0.720, "bitmap": 0.224, "groups": 0.608},
        weight={"bitmap": 0.167},
        base={2: 0.0399, 3: 0.0420, 4: 0.0438},
        scale=0.563,
        product=4957,
        dense=0.0641,
    ),
}


def seconds(matrix: CompressedMatrix, tokens: int = 1, *, products: bool = False) -> float:
    """Of one product with `tokens` tokens, on one thread of the processor that was measured.

    Args:
        products: whether the base is a product beside the operator, as a base that the operator does not read always
            is.
    """
    return _between({count: _nanoseconds(matrix, rates, products) for count, rates in RATES.items()}, tokens)


def int4_seconds(rows: int, columns: int, tokens: int = 1) -> float:
    """The same of plain codes of 4 bits (com.microsoft MatMulNBits)."""
    return _between({count: rates.product + rates.dense * rows * columns for count, rates in RATES.items()}, tokens)


def planned_seconds(shape: tuple[int, int], bits: int, block: int, rank: int, entries: int = 0) -> float:
    """Of one token's product with a base, a pair and single weights by column that are not there yet; a base that the
    operator does not read is a product beside it."""
    rates, (rows, columns) = RATES[1], shape
    weights = rows * columns
    rest = rates.number * rank * (rows + columns)
    if entries:
        rest += rates.row * rows + rates.entry["columns"] * entries
    if bits not in rates.base:
        return 1e-9 * (rates.product + rates.dense * weights + (rest + rates.layer) * (rest > 0))
    scales = rates.scale * rows * -(-columns // block)
    return 1e-9 * (rates.layer + rates.base[bits] * weights + scales + rest)


def _between(nanoseconds: Mapping[int, float], tokens: int) -> float:
    (few, low), (many, high) = sorted(nanoseconds.items())
    return 1e-9 * (low + (high - low) * (tokens - few) / (many - few))


def _nanoseconds(matrix: CompressedMatrix, rates: Rates, products: bool) -> float:
    rows, columns = matrix.shape
    total, operator = 0.0, False
    for piece in matrix.pieces:
        if isinstance(piece, Base) and (products or base_problem(piece) is not None):
            total += rates.product + rates.dense * rows * columns
            continue
        operator = True
        if isinstance(piece, Base):
            total += rates.base[piece.quantized.bits] * rows * columns + rates.scale * piece.quantized.scales.size
        elif isinstance(piece, Pair):
            total += rates.number * piece.rank * (rows + columns)
        elif isinstance(piece, Train):
            total += rates.number * piece.train().ranks[piece.shape.split] * (rows + columns)
        elif isinstance(piece, Sparse):
            total += _of_entries(piece, rates)
    return total + rates.layer * operator


def _of_entries(piece: Sparse, rates: Rates) -> float:
    """Formats that the operator does not read are bitmaps there."""
    found, (rows, columns) = piece.positions.format, piece.positions.shape
    kind = found if found in rates.entry else "bitmap"
    entries = int(piece.positions.mask().sum())
    return rates.row * rows + rates.entry[kind] * entries + rates.weight.get(kind, 0.0) * rows * columns
