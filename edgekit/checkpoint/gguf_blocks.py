"""The integers inside GGML's Q4_0, Q4_1 and Q8_0 blocks, and dequantisation of every type.

Block layouts (ggml/src/ggml-common.h), 32 weights each, d and m float16:
    Q4_0: d, 16 bytes;  w = d * (q - 8)        byte j holds weight j in its low and weight j + 16 in its high nibble
    Q4_1: d, m, 16 bytes;  w = d * q + m
    Q8_0: d, 32 int8;  w = d * q
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.checkpoint.interface import QuantBlocks

BLOCK = 32
_ROWS_AT_A_TIME = 4096


def _halves(blocks: npt.NDArray[np.uint8], start: int) -> npt.NDArray[np.float32]:
    """The float16 at byte `start` of each block, as float32."""
    return np.ascontiguousarray(blocks[..., start : start + 2]).view(np.float16)[..., 0].astype(np.float32)


def _nibbles(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.concatenate([packed & 0x0F, packed >> 4], axis=-1)


def _q4_0(blocks: npt.NDArray[np.uint8]) -> QuantBlocks:
    return QuantBlocks(_nibbles(blocks[..., 2:]), _halves(blocks, 0), None, zero_point=8, bits=4, type="Q4_0")


def _q4_1(blocks: npt.NDArray[np.uint8]) -> QuantBlocks:
    codes = _nibbles(blocks[..., 4:])
    return QuantBlocks(codes, _halves(blocks, 0), _halves(blocks, 2), zero_point=0, bits=4, type="Q4_1")


def _q8_0(blocks: npt.NDArray[np.uint8]) -> QuantBlocks:
    codes = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
    return QuantBlocks(codes, _halves(blocks, 0), None, zero_point=0, bits=8, type="Q8_0")


#: GGML type name -> (bytes of a block, reader).
_READERS = {"Q4_0": (18, _q4_0), "Q4_1": (20, _q4_1), "Q8_0": (34, _q8_0)}


def quant_blocks(rows: npt.NDArray[np.uint8], type_name: str) -> QuantBlocks | None:
    """Codes and scales of raw rows uint8 [out, row bytes], or None for another type."""
    if type_name not in _READERS:
        return None
    block_bytes, read = _READERS[type_name]
    return read(rows.reshape(rows.shape[0], -1, block_bytes))


@functools.cache
def dequantizable(type_id: int) -> bool:
    """Whether the gguf library can turn this GGML type into float32."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(type_id)
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def dequantize_rows(rows: npt.NDArray[np.uint8], type_id: int, width: int) -> npt.NDArray[Any]:
    """Raw rows uint8 [out, row bytes] as float32 [out, width], a few rows at a time to bound the extra memory."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(type_id)
    out = np.empty((rows.shape[0], width), np.float32)
    for start in range(0, rows.shape[0], _ROWS_AT_A_TIME):
        part = np.ascontiguousarray(rows[start : start + _ROWS_AT_A_TIME])
        out[start : start + _ROWS_AT_A_TIME] = dequantize(part, kind).reshape(part.shape[0], width)
    return out
