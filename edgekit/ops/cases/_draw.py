"""Drawing operands: the same values for every dtype, rounded to it."""

from __future__ import annotations

import math
import zlib
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type called "float32", "bfloat16", ..."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def generator(name: str) -> np.random.Generator:
    """Draws the same numbers for the same case name."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def exact_in_float32(value: float) -> float:
    """A number near `value` with a 5-bit mantissa: attributes are float32, and float64 forms must not notice."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 32) / 32, exponent)


def buffer(rows: Array, capacity: int) -> Array:
    """Cached rows [B, P, R, W] at the start of a buffer for `capacity`, NaN in the unused part."""
    batch, old, *rest = rows.shape
    unused = np.full((batch, capacity - old, *rest), np.nan, rows.dtype)
    return np.concatenate((rows, unused), 1)
