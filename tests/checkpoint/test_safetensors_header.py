"""Safetensors headers that lie, written byte by byte."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from edgekit.checkpoint.safetensors_header import read_safetensors_header
from edgekit.errors import CheckpointError


def file_bytes(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def info(begin: Any = 0, end: Any = 8, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [begin, end]}


TWICE = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'

LIES: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "it has 0 bytes"),
    "shorter than the length": (b"\x01\x02", "it has 2 bytes"),
    "header longer than the file": (file_bytes({"a": info()}, bytes(8), length=1 << 40), "claims 1,099,511,627,776"),
    "header of 2^64": (b"\xff" * 8 + b"{}", "claims 18,446,744,073,709,551,615"),
    "not JSON": (file_bytes(b"{nonsense"), "not valid JSON"),
    "not UTF-8": (file_bytes(b'{"\xff": 1}'), "not valid JSON"),
    "deep JSON": (file_bytes(b'{"a":' * 100_000), "not valid JSON"),
    "a list": (file_bytes([1, 2]), "not a JSON object"),
    "name twice": (file_bytes(TWICE, bytes(8)), "occurs twice"),
    "no shape": (file_bytes({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)), "'a' lacks"),
    "entry is a number": (file_bytes({"a": 7}, bytes(8)), "'a' lacks"),
    "negative size": (file_bytes({"a": info(shape=(-2,))}, bytes(8)), "has the shape [-2]"),
    "shape is text": (file_bytes({"a": info(shape="2")}, bytes(8)), "has the shape 2"),
    "fractional size": (file_bytes({"a": info(shape=(2.0,))}, bytes(8)), "has the shape [2.0]"),
    "size is true": (file_bytes({"a": info(shape=(True,))}, bytes(8)), "has the shape [True]"),
    "negative offset": (file_bytes({"a": info(-8, 0)}, bytes(8)), "has the data_offsets [-8, 0]"),
    "end before begin": (file_bytes({"a": info(8, 0)}, bytes(8)), "it claims bytes 8 to 0"),
    "end past the file": (file_bytes({"a": info(0, 800, (200,))}, bytes(8)), "0 to 800 of 8"),
    "huge shape": (file_bytes({"a": info(shape=(1 << 40, 1 << 40))}, bytes(8)), "needs 4,8"),
    "shape and bytes differ": (file_bytes({"a": info(shape=(3,))}, bytes(8)), "needs 12 bytes"),
    "unknown dtype": (file_bytes({"a": info(dtype="F99")}, bytes(8)), "unknown dtype 'F99'"),
    "dtype is a list": (file_bytes({"a": info(dtype=["F32"])}, bytes(8)), "unknown dtype"),
    "overlap": (file_bytes({"a": info(), "b": info(4, 12)}, bytes(12)), "'b' overlaps another"),
    "same bytes twice": (file_bytes({"a": info(), "b": info()}, bytes(8)), "overlaps another"),
    "hole": (file_bytes({"a": info(), "b": info(16, 24)}, bytes(24)), "'b' leaves a hole"),
    "bytes after the last": (file_bytes({"a": info()}, bytes(9)), "its tensors end at byte"),
    "cut short": (file_bytes({"a": info()}, bytes(7)), "0 to 8 of 7"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_with_the_lie(tmp_path: Path, lie: str) -> None:
    content, fact = LIES[lie]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_safetensors_header(path)
    assert fact in error.value.fact
    assert str(path) in error.value.fact
    assert "fetch it again" in error.value.next_step


def test_a_true_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {
        "__metadata__": {"format": "pt"},
        "b": info(8, 12, (2, 1), "BF16"),
        "a": info(),
        "e": info(12, 12, (0, 3)),
    }
    content = file_bytes(header, bytes(12))
    path.write_bytes(content)
    tensors = read_safetensors_header(path)
    start = len(content) - 12
    assert [(t.name, t.shape, t.dtype, t.offset, t.nbytes) for t in tensors.values()] == [
        ("b", (2, 1), "BF16", start + 8, 4),
        ("a", (2,), "F32", start, 8),
        ("e", (0, 3), "F32", start + 12, 0),
    ]
