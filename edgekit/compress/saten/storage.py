"""Numbers as they are stored: float16, or codes of a few bits with a float16 scale per block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.compress.blockwise import BlockQuantized, Floats, quantize_blocks
from edgekit.errors import ExportError

Arrays = dict[str, npt.NDArray[Any]]
Bytes = npt.NDArray[np.uint8]

FLOAT = "float16"
#: Stored dtype → bits of a code.
CODES = {"int2": 2, "int3": 3, "int4": 4, "int8": 8}
SCALE_BYTES = 2


@dataclass(frozen=True)
class Stored:
    """An array of any shape, flattened in row-major order and cut into blocks of `block` numbers.

    Attributes:
        shape: of the array.
        dtype: "float16" or a key of CODES; codes mean scale · (code − 2^(bits−1)).
        block: numbers that share a scale; 0 for float16.
        arrays: {"values": float16 [n]}, or {"codes": uint8 packed (`packed`), "scales": float16 [⌈n/block⌉]}.
    """

    shape: tuple[int, ...]
    dtype: str
    block: int
    arrays: Arrays

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def values(self) -> Floats:
        """float32, in its shape."""
        if self.dtype == FLOAT:
            return self.arrays["values"].astype(np.float32).reshape(self.shape)
        count, bits = int(np.prod(self.shape)), CODES[self.dtype]
        scales = self.arrays["scales"].astype(np.float32)
        codes = unpacked(self.arrays["codes"], bits, count).astype(np.float32) - 2 ** (bits - 1)
        values: Floats = codes * np.repeat(scales, self.block)[:count]
        return values.reshape(self.shape)

    def record(self) -> dict[str, Any]:
        """All but the arrays, for JSON."""
        return {"shape": list(self.shape), "dtype": self.dtype, "block": self.block}


def from_record(record: Mapping[str, Any], arrays: Arrays) -> Stored:
    """The inverse of `record`, given the arrays."""
    return Stored(tuple(record["shape"]), record["dtype"], record["block"], arrays)


def stored(values: Floats, dtype: str, block: int = 64, importance: Floats | None = None) -> Stored:
    """Store an array; scales are searched for the least squared error (`quantize_blocks`).

    Args:
        importance: weights of the squared errors, of the array's shape.

    Raises:
        ExportError: an unknown dtype, or values beyond float16.
    """
    check_dtype(dtype)
    flat = np.ascontiguousarray(values, np.float32).reshape(1, -1)
    if dtype == FLOAT:
        return Stored(values.shape, dtype, 0, {"values": half(flat[0])})
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32).ravel()
    quantized = quantize_blocks(flat, CODES[dtype], block, symmetric=True, importance=weights)
    return stored_codes(quantized, values.shape, dtype)


def stored_codes(quantized: BlockQuantized, shape: tuple[int, ...], dtype: str) -> Stored:
    """Codes with the middle as their zero point, from a matrix whose rows are whole blocks or that has one row."""
    block, count = quantized.codes.shape[2], int(np.prod(shape))
    codes = packed(quantized.codes.reshape(-1)[:count], quantized.bits)
    return Stored(shape, dtype, block, {"codes": codes, "scales": half(quantized.scales.ravel())})


def stored_bytes(count: int, dtype: str, block: int = 64) -> int:
    """What `stored` will take for `count` numbers."""
    check_dtype(dtype)
    if dtype == FLOAT:
        return 2 * count
    return -(-count * CODES[dtype] // 8) + SCALE_BYTES * -(-count // block)


def packed(codes: Bytes, bits: int) -> Bytes:
    """Codes one after another without gaps, the lowest bits first: uint8 [⌈n · bits / 8⌉]."""
    if bits == 8:
        return np.ascontiguousarray(codes.ravel())
    lowest_first = np.unpackbits(codes.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(lowest_first, bitorder="little")


def unpacked(data: Bytes, bits: int, count: int) -> Bytes:
    """The inverse of `packed`: uint8 [count]."""
    stream = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(stream, axis=1, bitorder="little").ravel()


def half(values: Floats) -> npt.NDArray[np.float16]:
    """As float16; ExportError for what float16 cannot hold."""
    top = float(np.abs(values).max(initial=0))
    if not top <= float(np.finfo(np.float16).max):
        raise ExportError(
            "factors, values and scales are stored as float16, whose largest number is 65504",
            f"{top:g} is among them",
            "check the weights and the calibration",
        )
    return values.astype(np.float16)


def check_dtype(dtype: str) -> None:
    """ExportError for a dtype that cannot be stored."""
    if dtype != FLOAT and dtype not in CODES:
        raise ExportError(
            f"factors and values are stored as {', '.join([FLOAT, *CODES])}", f"{dtype!r} was asked for", "choose one"
        )
