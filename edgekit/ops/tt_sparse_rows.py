"""The residual of `edgekit::TTSparseLinear`: rows of as many entries each, two 16-bit columns to an int32."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.ops.spec import OperatorError

Array = np.ndarray[Any, np.dtype[Any]]

#: What 16 bits can number.
MOST_INPUTS = 2**16


def packed_rows(residual: Array) -> tuple[Array, Array]:
    """Columns and values of a residual, every row padded to the fullest one and to an even number.

    Absent entries have the value 0 and columns that the row does not use, so that those of a row are distinct.

    Args:
        residual: [O, K], 0 where nothing is kept.

    Returns:
        columns int32 [O, Z/2]; values [O, Z] of the residual's type.

    Raises:
        OperatorError: K is above 65536, or a row is so full that its entries cannot be padded to an even number.
    """
    inputs = residual.shape[1]
    if inputs > MOST_INPUTS:
        raise OperatorError(f"columns of 16 bits need at most {MOST_INPUTS} inputs", f"the residual has {inputs}")
    kept = residual != 0
    fullest = int(kept.sum(1).max(initial=0))
    entries = max(2, fullest + fullest % 2)
    if entries > inputs:
        raise OperatorError(
            "a row of the residual must have room for an even number of distinct columns",
            f"{fullest} of {inputs} are kept",
        )
    order = np.argsort(~kept, axis=1, kind="stable")[:, :entries]
    return packed_columns(order), np.take_along_axis(residual, order, 1)


def packed_columns(columns: Array) -> Array:
    """int32 [O, Z/2] from columns [O, Z]: the low half of a word is the earlier entry, whatever the machine."""
    halves = columns.astype(np.uint32)
    words: Array = (halves[:, 0::2] | halves[:, 1::2] << 16).view(np.int32)
    return words


def unpacked_columns(words: Array) -> Array:
    """int64 [O, Z] from int32 [O, Z/2]."""
    halves = words.view(np.uint32)
    return np.stack((halves & 0xFFFF, halves >> 16), -1).reshape(len(words), -1).astype(np.int64)
