"""Sparse matrices [N out, K in] as they are stored: positions in a compact format, and values in `storage`'s.

| format | positions |
|---|---|
| columns | uint16 column of each value, row by row; uint16 number of values of each row |
| bitmap | one bit per weight, row by row, the lowest bit first |
| groups | for m of n: ⌈log2 n⌉ bits per value, its place in its group (for 2:4, sparse tensor cores' metadata) |
| rows | uint16 row numbers |
| blocks | uint16 (uint32 beyond 65536 blocks) block numbers, row by row of the grid |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from edgekit.compress.blockwise import Floats
from edgekit.compress.saten.sparse import Blocks, Groups, Nothing, Rows, Sparsity, Unstructured, kept_of
from edgekit.compress.saten.storage import Arrays, Stored, packed, stored, stored_bytes, unpacked
from edgekit.errors import ExportError

Mask = npt.NDArray[np.bool_]
SMALL = 2**16


@dataclass(frozen=True)
class Positions:
    """Where the values stand.

    Attributes:
        format: of the table above.
        shape: [N, K].
        group: (m, n) of groups, (rows, columns) of blocks, else (1, 1).
        arrays: of the table above.
    """

    format: str
    shape: tuple[int, int]
    group: tuple[int, int]
    arrays: Arrays

    def mask(self) -> Mask:
        """bool [N, K]. Values stand in the order of its True, row by row."""
        return _DECODE[self.format](self)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


def positions(mask: Mask, sparsity: Sparsity) -> Positions:
    """Encode a mask that the pattern made; of columns and bitmap, the smaller.

    Raises:
        ExportError: more rows or columns than the format's numbers reach.
    """
    rows = mask.shape[0]
    if isinstance(sparsity, Unstructured):
        if not _by_column(int(mask.sum()), mask.shape):
            return Positions("bitmap", mask.shape, (1, 1), {"bits": np.packbits(mask, bitorder="little")})
        places, counts = np.nonzero(mask)[1].astype(np.uint16), mask.sum(1).astype(np.uint16)
        return Positions("columns", mask.shape, (1, 1), {"columns": places, "counts": counts})
    if isinstance(sparsity, Groups):
        inside = (np.nonzero(mask)[1] % sparsity.of).astype(np.uint8)
        bits = _place_bits(sparsity.of)
        return Positions("groups", mask.shape, (sparsity.kept, sparsity.of), {"places": packed(inside, bits)})
    if isinstance(sparsity, Rows):
        _reaches(rows, "rows")
        numbers = np.flatnonzero(mask.any(1)).astype(np.uint16)
        return Positions("rows", mask.shape, (1, 1), {"rows": numbers})
    assert isinstance(sparsity, Blocks)
    size = (sparsity.rows, sparsity.columns)
    grid = mask[:: size[0], :: size[1]]
    dtype = np.uint16 if grid.size <= SMALL else np.uint32
    return Positions("blocks", mask.shape, size, {"blocks": np.flatnonzero(grid).astype(dtype)})


def _by_column(kept: int, shape: tuple[int, ...]) -> bool:
    """Whether unstructured entries are stored by column numbers, which must then fit; else by a bitmap."""
    rows, columns = shape
    smaller = 2 * kept + 2 * rows < -(-rows * columns // 8)
    if smaller:
        _reaches(columns, "columns")
    return smaller


def _reaches(count: int, what: str) -> None:
    if count >= SMALL:
        raise ExportError(
            f"positions are stored in 16 bits, for fewer than {SMALL} {what}", f"there are {count}", "choose m:n"
        )


def _place_bits(group: int) -> int:
    return max(1, (group - 1).bit_length())


def _columns(found: Positions) -> Mask:
    mask = np.zeros(found.shape, np.bool_)
    mask[np.repeat(np.arange(found.shape[0]), found.arrays["counts"]), found.arrays["columns"]] = True
    return mask


def _bitmap(found: Positions) -> Mask:
    count = found.shape[0] * found.shape[1]
    return np.unpackbits(found.arrays["bits"], count=count, bitorder="little").reshape(found.shape).astype(np.bool_)


def _groups(found: Positions) -> Mask:
    (kept, of), size = found.group, found.shape[0] * found.shape[1]
    places = unpacked(found.arrays["places"], _place_bits(of), size // of * kept)
    mask = np.zeros((size // of, of), np.bool_)
    np.put_along_axis(mask, places.reshape(-1, kept).astype(np.int64), True, axis=1)
    return mask.reshape(found.shape)


def _rows(found: Positions) -> Mask:
    mask = np.zeros(found.shape, np.bool_)
    mask[found.arrays["rows"]] = True
    return mask


def _blocks(found: Positions) -> Mask:
    grid = np.zeros((found.shape[0] // found.group[0], found.shape[1] // found.group[1]), np.bool_)
    grid.ravel()[found.arrays["blocks"]] = True
    return np.kron(grid, np.ones(found.group, np.bool_)).astype(np.bool_)


_DECODE = {"columns": _columns, "bitmap": _bitmap, "groups": _groups, "rows": _rows, "blocks": _blocks}


@dataclass(frozen=True)
class Sparse:
    """A sparse matrix as stored: values in the order of the mask's True, row by row."""

    KIND = "sparse"

    positions: Positions
    values: Stored

    @property
    def nbytes(self) -> int:
        return self.positions.nbytes + self.values.nbytes

    def dense(self) -> Floats:
        """float32 [N, K]."""
        matrix = np.zeros(self.positions.shape, np.float32)
        matrix[self.positions.mask()] = self.values.values()
        return matrix

    def arrays(self) -> Arrays:
        values = {f"value_{name}": array for name, array in self.values.arrays.items()}
        return {**self.positions.arrays, **values}

    def record(self) -> dict[str, Any]:
        where = self.positions
        entry = {"format": where.format, "shape": list(where.shape), "group": list(where.group)}
        return {"kind": self.KIND, **entry, "values": self.values.record()}


def sparse(
    residual: Tensor, mask: Tensor, sparsity: Sparsity, dtype: str, block: int = 64, importance: Tensor | None = None
) -> Sparse:
    """Store the entries of a residual [N, K] where the mask is True; importance [N, K] weighs their errors."""
    where = mask.numpy()
    weights = None if importance is None else importance.float().numpy()[where]
    return Sparse(positions(where, sparsity), stored(residual.float().numpy()[where], dtype, block, weights))


def sparse_bytes(shape: tuple[int, int], sparsity: Sparsity, dtype: str, block: int = 64) -> int:
    """What `sparse` will take: values, scales and positions. Raises ExportError where it does."""
    rows, columns = shape
    size = rows * columns
    if isinstance(sparsity, Nothing):
        return 0
    if isinstance(sparsity, Groups):
        kept = size // sparsity.of * sparsity.kept
        index = -(-kept * _place_bits(sparsity.of) // 8)
    elif isinstance(sparsity, Unstructured):
        kept = kept_of(size, sparsity.zeros)
        index = 2 * kept + 2 * rows if _by_column(kept, shape) else -(-size // 8)
    elif isinstance(sparsity, Rows):
        lines = kept_of(rows, sparsity.zeros)
        kept, index = lines * columns, 2 * lines
    else:
        assert isinstance(sparsity, Blocks)
        grid = rows // sparsity.rows * (columns // sparsity.columns)
        blocks = kept_of(grid, sparsity.zeros)
        kept, index = blocks * sparsity.rows * sparsity.columns, blocks * (2 if grid <= SMALL else 4)
    return index + stored_bytes(kept, dtype, block)
