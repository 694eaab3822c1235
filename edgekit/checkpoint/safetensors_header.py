"""The header of a safetensors file, read without trusting it.

Layout (https://github.com/huggingface/safetensors#format): header length uint64 little-endian, header as JSON, data.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import CheckpointError

#: The limit that the safetensors library itself sets.
MAX_HEADER_BYTES = 100_000_000

#: safetensors name -> (NumPy name, bytes of an element). Others cannot be used as weights.
DTYPES = {"F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)}
#: Integers, by the same names: codes and positions of compressed matrices.
INTEGERS = {"U8": "uint8", "U16": "uint16", "U32": "uint32", "I32": "int32"}
_OTHER_SIZES = {"F64": 8, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_OTHER_SIZES |= {"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}


@dataclass(frozen=True)
class SafeTensor:
    """Where a tensor lies: offset in bytes from the start of the file; dtype by its safetensors name ("BF16")."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    nbytes: int


def _broken(path: Path, fact: str) -> CheckpointError:
    return CheckpointError(
        "a safetensors file's header must agree with the file",
        f"{path}: {fact}",
        "the file is truncated or damaged: fetch it again and compare its SHA-256 with the publisher's",
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_json(path: Path, file_bytes: int) -> tuple[dict[str, Any], int]:
    """The header and the offset at which data starts."""
    with path.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise _broken(path, f"it has {file_bytes} bytes, fewer than the 8 of the header length")
        length: int = struct.unpack("<Q", prefix)[0]
        if length > min(MAX_HEADER_BYTES, file_bytes - 8):
            raise _broken(path, f"the header claims {length:,} bytes, but only {file_bytes - 8:,} follow")
        raw = stream.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"the header is not valid JSON ({error})") from None
    if not isinstance(header, dict):
        raise _broken(path, "the header is not a JSON object")
    return header, 8 + length


def _entry(name: str, info: Any, start: int, data_bytes: int, path: Path) -> SafeTensor:
    what = f"the tensor {name!r}"
    if not isinstance(info, dict) or not {"dtype", "shape", "data_offsets"} <= info.keys():
        raise _broken(path, f"{what} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise _broken(path, f"{what} has the shape {str(shape)[:80]}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise _broken(path, f"{what} has the data_offsets {str(offsets)[:80]}")
    known = isinstance(dtype, str) and (dtype in DTYPES or dtype in _OTHER_SIZES)
    if not known:
        raise _broken(path, f"{what} has the unknown dtype {str(dtype)[:40]!r}")
    needed = DTYPES[dtype][1] if dtype in DTYPES else _OTHER_SIZES[dtype]
    for size in shape:
        needed *= size
    begin, end = offsets
    if end > data_bytes or end - begin != needed:
        raise _broken(
            path,
            f"{what} of shape {str(shape)[:80]} and dtype {dtype} needs {needed:,} bytes; it claims bytes {begin:,} to "
            f"{end:,} of {data_bytes:,}",
        )
    return SafeTensor(name, tuple(shape), dtype, start + begin, needed)


def read_safetensors_header(path: Path) -> dict[str, SafeTensor]:
    """Tensors by name, in the order of the header. Raises CheckpointError naming what is wrong."""
    file_bytes = path.stat().st_size
    header, start = _read_json(path, file_bytes)
    data_bytes = file_bytes - start
    tensors = {
        name: _entry(name, info, start, data_bytes, path) for name, info in header.items() if name != "__metadata__"
    }
    end = start
    for tensor in sorted(tensors.values(), key=lambda t: (t.offset, t.nbytes)):
        if tensor.offset != end:
            relation = "overlaps another" if tensor.offset < end else "leaves a hole before it"
            raise _broken(path, f"the data of the tensor {tensor.name!r} {relation}")
        end += tensor.nbytes
    if end != file_bytes:
        raise _broken(path, f"its tensors end at byte {end:,}, the file at {file_bytes:,}")
    return tensors
