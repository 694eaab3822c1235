"""The operands of `edgekit::TTSparseLinear` from arrays: words of what is stored, and positions of a residual."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.ops.spec import Attributes, OperatorError
from edgekit.ops.specs.tt_sparse_linear import BITMAP, CODES, COLUMNS, GROUP, GROUPS, MOST_INPUTS

Array = np.ndarray[Any, np.dtype[Any]]


def words(data: Array) -> Array:
    """The bytes of a little-endian array as int32 [⌈bytes / 4⌉], the last one filled with zeros."""
    found = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
    return np.pad(found, (0, -len(found) % 4)).view("<i4").astype(np.int32, copy=False)


def packed_words(codes: Array, bits: int) -> Array:
    """int32 words of unsigned codes of 1, 2, 4, 8 or 16 bits, without gaps, the lowest bits first."""
    if bits == 16:
        return words(codes.astype("<u2"))
    stream = np.unpackbits(codes.astype(np.uint8).reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return words(np.packbits(stream, bitorder="little"))


def unpacked_words(found: Array, bits: int, count: int) -> Array:
    """The inverse of `packed_words`: int64 [count]."""
    if bits == 16:
        return found.astype("<i4").view("<u2")[:count].astype(np.int64)
    stream = np.unpackbits(found.astype("<i4").view(np.uint8), count=count * bits, bitorder="little")
    return np.packbits(stream.reshape(count, bits), axis=1, bitorder="little").ravel().astype(np.int64)


def positions(mask: Array, residual: int, kept: int = 0) -> dict[str, Array]:
    """The operands that say where a mask's entries are: `positions`, and `starts` but for groups.

    Args:
        mask: bool [O, K].
        residual: value of the attribute: COLUMNS, BITMAP or GROUPS.
        kept: of each group of 4.

    Raises:
        OperatorError: nothing is kept; K is above 65536 for columns; or a group holds another number.
    """
    if not mask.any():
        raise OperatorError("a residual must have entries", "nothing is kept")
    if residual == GROUPS:
        return {"positions": packed_words(np.nonzero(mask)[1] % GROUP, 2)} if _grouped(mask, kept) else {}
    found = {"starts": starts(mask.sum(1))}
    if residual == BITMAP:
        return found | {"positions": words(np.packbits(mask, bitorder="little"))}
    assert residual == COLUMNS
    if mask.shape[1] > MOST_INPUTS:
        raise OperatorError(
            f"columns of 16 bits need at most {MOST_INPUTS} inputs", f"the residual has {mask.shape[1]}"
        )
    return found | {"positions": packed_words(np.nonzero(mask)[1], 16)}


def starts(counts: Array) -> Array:
    """int32 [O]: entries of the rows before each."""
    return (np.cumsum(counts) - counts).astype(np.int32)


def _grouped(mask: Array, kept: int) -> bool:
    if mask.shape[1] % GROUP or (mask.reshape(-1, GROUP).sum(1) != kept).any():
        raise OperatorError(
            f"each {GROUP} inputs of an output must have {kept} entries",
            "some have another number",
        )
    return True


def numbers(attributes: Attributes, what: str, array: Array, scales: Array | None, count: int) -> Array:
    """float32 [count] that an operand stands for; `what` is "factor" or "value"."""
    bits = int(attributes[f"{what}_bits"])
    if bits not in CODES:
        return array.astype(np.float32).ravel()
    assert scales is not None
    centred = unpacked_words(array, bits, count).astype(np.float32) - 2 ** (bits - 1)
    return np.asarray(centred * np.repeat(scales.astype(np.float32), int(attributes[f"{what}_block"]))[:count])


def two_of_four(attributes: Attributes, places: Array, values: Array, scales: Array | None, inputs: int) -> Array:
    """float32 [O, K]: the residual of groups of 4 inputs, zeros where nothing is kept."""
    count, outputs = int(attributes["entries"]), int(attributes["out_features"])
    groups = np.arange(count) // int(attributes["group_kept"])
    flat = np.zeros(outputs * inputs, np.float32)
    flat[groups * GROUP + unpacked_words(places, 2, count)] = numbers(attributes, "value", values, scales, count)
    return flat.reshape(outputs, inputs)
