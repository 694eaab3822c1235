"""The header of a GGUF file, read without trusting it.

Layout, all little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic "GGUF", version uint32,
tensor count uint64, metadata count uint64, metadata, tensor infos, padding to the alignment, tensor data. Every count
and length is compared with the bytes that are left before anything is read or allocated, so a header that lies costs
no more memory than a small multiple of the file.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import CheckpointError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMS = 4
DEFAULT_ALIGNMENT = 32

_STRING = 8
_ARRAY = 9
#: GGUF value type -> struct format of a scalar.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
#: The least a metadata entry (key length, type, one byte) and a tensor info (name length, dims, type, offset) can take.
_LEAST_ENTRY_BYTES = 8 + 4 + 1
_LEAST_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies.

    Attributes:
        shape: in the order of PyTorch (GGUF stores it reversed).
        type_id: GGML type number.
        type_name: GGML type name, "Q4_1".
        offset: byte offset from the start of the file.
        nbytes: bytes of data.
        row_bytes: bytes of one row, i.e. of `shape[-1]` elements.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    type_name: str
    offset: int
    nbytes: int
    row_bytes: int


@dataclass(frozen=True)
class GgufHeader:
    """Metadata (str, int, float, bool, list of str, or NumPy array by key) and tensors (by GGUF name, file order)."""

    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def broken(path: Path, fact: str) -> CheckpointError:
    """The error for a file whose contents contradict themselves or its length."""
    return CheckpointError(
        "a GGUF file's header must agree with the file",
        f"{path}: {fact}",
        "the file is truncated or damaged: fetch it again and compare its SHA-256 with the publisher's",
    )


class _Cursor:
    """Reads forward through the mapped file; refuses to go past its end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.position = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def take(self, nbytes: int, what: str) -> bytes:
        if nbytes > self.left:
            raise broken(
                self.path,
                f"{what} needs {nbytes:,} bytes at offset {self.position:,}, but the file ends {self.left:,} bytes on",
            )
        start = self.position
        self.position += nbytes
        return self.data[start : self.position]

    def scalar(self, code: str, what: str) -> Any:
        form = "<" + code
        return struct.unpack(form, self.take(struct.calcsize(form), what))[0]

    def string(self, what: str) -> str:
        raw = self.take(self.scalar("Q", f"the length of {what}"), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise broken(self.path, f"{what} is not UTF-8 ({error.reason} at byte {error.start})") from None


def _read_array(cursor: _Cursor, what: str) -> Any:
    kind: int = cursor.scalar("I", f"the element type of {what}")
    count: int = cursor.scalar("Q", f"the length of {what}")
    if kind == _STRING:
        if count * 8 > cursor.left:
            raise broken(cursor.path, f"{what} claims {count:,} strings, but only {cursor.left:,} bytes are left")
        return [cursor.string(what) for _ in range(count)]
    if kind not in _SCALARS:
        raise broken(cursor.path, f"{what} is an array of elements of type {kind}, which edgekit does not read")
    dtype = np.dtype("<" + _SCALARS[kind])
    return np.frombuffer(cursor.take(count * dtype.itemsize, what), dtype)


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.string("a metadata key")
        kind: int = cursor.scalar("I", f"the type of {key!r}")
        what = f"the metadata value {key!r}"
        if key in metadata:
            raise broken(cursor.path, f"the metadata key {key!r} occurs twice")
        if kind == _STRING:
            metadata[key] = cursor.string(what)
        elif kind == _ARRAY:
            metadata[key] = _read_array(cursor, what)
        elif kind in _SCALARS:
            metadata[key] = cursor.scalar(_SCALARS[kind], what)
        else:
            raise broken(cursor.path, f"{what} has the unknown type {kind}")
    return metadata


def _alignment(metadata: dict[str, Any], path: Path) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise broken(path, f"general.alignment is {alignment!r}, which is no power of two")
    return alignment


def _read_tensor(cursor: _Cursor) -> GgufTensor:
    """One tensor info; its offset is still relative to the start of the data."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    name = cursor.string("a tensor name")
    what = f"the tensor {name!r}"
    dims: int = cursor.scalar("I", what)
    if not 1 <= dims <= MAX_DIMS:
        raise broken(cursor.path, f"{what} claims {dims} dimensions; GGUF allows 1 to {MAX_DIMS}")
    shape = tuple(cursor.scalar("Q", what) for _ in range(dims))[::-1]
    type_id: int = cursor.scalar("I", what)
    offset: int = cursor.scalar("Q", what)
    try:
        kind = GGMLQuantizationType(type_id)
        block, block_bytes = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        raise broken(cursor.path, f"{what} has the unknown GGML type {type_id}") from None
    if 0 in shape or shape[-1] % block:
        raise broken(cursor.path, f"{what} of shape {list(shape)} cannot be stored in {kind.name} blocks of {block}")
    row_bytes = shape[-1] // block * block_bytes
    nbytes = row_bytes
    for size in shape[:-1]:
        nbytes *= size
    return GgufTensor(name, shape, type_id, kind.name, offset, nbytes, row_bytes)


def _place(tensors: list[GgufTensor], start: int, alignment: int, file_bytes: int, path: Path) -> dict[str, GgufTensor]:
    """Absolute offsets, checked against the file, the alignment and each other."""
    placed: dict[str, GgufTensor] = {}
    for t in tensors:
        offset = start + t.offset
        what = f"the tensor {t.name!r} of shape {list(t.shape)} and type {t.type_name}"
        if t.name in placed:
            raise broken(path, f"the tensor name {t.name!r} occurs twice")
        if offset + t.nbytes > file_bytes:
            raise broken(
                path, f"{what} needs {t.nbytes:,} bytes at offset {offset:,}, but the file has {file_bytes:,} bytes"
            )
        if t.offset % alignment:
            raise broken(path, f"{what} starts at {t.offset:,}, which is no multiple of the alignment {alignment}")
        placed[t.name] = GgufTensor(t.name, t.shape, t.type_id, t.type_name, offset, t.nbytes, t.row_bytes)
    ordered = sorted(placed.values(), key=lambda t: t.offset)
    for before, after in itertools.pairwise(ordered):
        if before.offset + before.nbytes > after.offset:
            raise broken(path, f"the data of the tensors {before.name!r} and {after.name!r} overlap")
    return placed


def _check_version(cursor: _Cursor) -> None:
    version: int = cursor.scalar("I", "the version")
    if version in VERSIONS:
        return
    # A version written in the other byte order has its low 16 bits zero.
    fact = f"version {version}"
    if version & 0xFFFF == 0:
        fact = "big-endian byte order"
    raise CheckpointError(
        f"edgekit reads little-endian GGUF, versions {' and '.join(map(str, VERSIONS))}",
        f"{cursor.path} has {fact}",
        "convert it with a current llama.cpp, or take another file of the same model",
    )


def read_gguf_header(path: Path) -> GgufHeader:
    """Reads and checks the header. Raises CheckpointError naming what is wrong; reads no tensor data."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        magic = stream.read(4)
        if magic != MAGIC:
            raise CheckpointError(
                'a GGUF file starts with the four bytes "GGUF"',
                f"{path} ({size:,} bytes) starts with {magic!r}",
                "give a .gguf file, a Hugging Face directory, a known name, or OWNER/NAME",
            )
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(_Cursor(data, path))


def _parse(cursor: _Cursor) -> GgufHeader:
    cursor.take(len(MAGIC), "the magic")
    _check_version(cursor)
    tensor_count: int = cursor.scalar("Q", "the tensor count")
    entry_count: int = cursor.scalar("Q", "the metadata count")
    if entry_count * _LEAST_ENTRY_BYTES + tensor_count * _LEAST_TENSOR_BYTES > cursor.left:
        raise broken(
            cursor.path,
            f"it claims {entry_count:,} metadata entries and {tensor_count:,} tensors, more than its "
            f"{cursor.left:,} remaining bytes can describe",
        )
    metadata = _read_metadata(cursor, entry_count)
    alignment = _alignment(metadata, cursor.path)
    tensors = [_read_tensor(cursor) for _ in range(tensor_count)]
    start = -(-cursor.position // alignment) * alignment
    return GgufHeader(metadata, _place(tensors, start, alignment, len(cursor.data), cursor.path))
