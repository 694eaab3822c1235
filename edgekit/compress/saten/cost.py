"""How long products with a compressed matrix take on a CPU: a sum over what it consists of, fitted to measurements.

The coefficients are least squares of relative errors over the layers and shapes of docs/tt-sparse-kernels.md, which
names the command and the processor; the sum is within 8 % of a measured time on average, 30 % at most. On another
processor the proportions may serve, the seconds do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.compress.saten.compressed import CompressedMatrix
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
        dense: per weight of a base of 4 bits (com.microsoft MatMulNBits).
    """

    layer: float
    number: float
    row: float
    entry: Mapping[str, float]
    weight: Mapping[str, float]
    dense: float


#: By tokens; in between and beyond, times are on the line through both.
RATES = {
    1: Rates(1023, 0.044, 4.8, {"columns": 0.303, "bitmap": 0.235, "groups": 0.117}, {"bitmap": 0.043}, 0.0121),
    8: Rates(2041, 0.221, 10.0, {"columns": 0.720, "bitmap": 0.224, "groups": 0.608}, {"bitmap": 0.167}, 0.070),
}


def seconds(matrix: CompressedMatrix, tokens: int = 1) -> float:
    """Of one product with `tokens` tokens, on one thread of the processor that was measured."""
    (few, low), (many, high) = ((count, _nanoseconds(matrix, rates)) for count, rates in sorted(RATES.items()))
    return 1e-9 * (low + (high - low) * (tokens - few) / (many - few))


def _nanoseconds(matrix: CompressedMatrix, rates: Rates) -> float:
    rows, columns = matrix.shape
    total, operator = 0.0, False
    for piece in matrix.pieces:
        if isinstance(piece, Base):
            total += rates.dense * rows * columns
            continue
        operator = True
        if isinstance(piece, Pair):
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
