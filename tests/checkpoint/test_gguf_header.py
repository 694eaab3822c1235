"""Headers that lie. Each test writes the bytes itself, so that every field can be wrong."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.checkpoint import open_checkpoint
from edgekit.checkpoint.gguf_header import read_gguf_header
from edgekit.errors import CheckpointError

HUGE = 1 << 62


def string(text: str | bytes, length: int | None = None) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(
    name: str = "t", shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0, dims: int | None = None
) -> bytes:
    sizes = b"".join(struct.pack("<Q", size) for size in shape)
    return (
        string(name)
        + struct.pack("<I", len(shape) if dims is None else dims)
        + sizes
        + struct.pack("<IQ", kind, offset)
    )


def header(
    *entries: bytes,
    tensors: tuple[bytes, ...] = (),
    data: bytes = b"",
    version: int = 3,
    tensor_count: int | None = None,
    entry_count: int | None = None,
    magic: bytes = b"GGUF",
) -> bytes:
    """A GGUF file; the counts are right unless given."""
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(entries) if entry_count is None else entry_count,
    )
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(entries) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


LIES: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "0 bytes"),
    "not a GGUF": (b"PK\x03\x04" + b"\0" * 100, "starts with b'PK"),
    "magic only": (b"GGUF", "the version needs 4 bytes"),
    "version 1": (header(version=1), "has version 1"),
    "version of the future": (header(version=9), "has version 9"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "too many entries": (header(entry_count=HUGE), "more than its"),
    "too many tensors": (header(tensor_count=HUGE), "more than its"),
    "key longer than the file": (header(string("k", HUGE) + b"\0" * 32), "a metadata key needs"),
    "string longer than the file": (header(entry("k", 8, string("v", HUGE))), "'k' needs 4,611,686,018,427,387,904"),
    "numbers past the end": (header(entry("k", 9, array(10, HUGE, b""))), "'k' needs"),
    "strings past the end": (header(entry("k", 9, array(8, HUGE, b""))), "claims 4,611,686,018,427,387,904 strings"),
    "nested array": (header(entry("k", 9, array(9, 1, array(4, 0, b"")))), "elements of type 9"),
    "unknown type": (header(entry("k", 77, b"\0" * 8)), "unknown type 77"),
    "key twice": (header(entry("k", 4, b"\0" * 4), entry("k", 4, b"\0" * 4)), "'k' occurs twice"),
    "not UTF-8": (header(entry("k", 8, string(b"\xff\xfe"))), "'k' is not UTF-8"),
    "alignment 0": (header(entry("general.alignment", 4, struct.pack("<I", 0))), "no power of two"),
    "alignment 48": (header(entry("general.alignment", 4, struct.pack("<I", 48))), "no power of two"),
    "alignment is text": (header(entry("general.alignment", 8, string("32"))), "no power of two"),
    "too many dimensions": (header(tensors=(tensor(dims=5),), data=bytes(32)), "claims 5 dimensions"),
    "no dimensions": (header(tensors=(tensor(shape=()),), data=bytes(32)), "claims 0 dimensions"),
    "dimension of 0": (header(tensors=(tensor(shape=(0,)),), data=bytes(32)), "cannot be stored"),
    "huge dimensions": (header(tensors=(tensor(shape=(HUGE, HUGE, HUGE, HUGE)),), data=bytes(32)), "but the file has"),
    "product that wraps to 0": (
        header(tensors=(tensor(shape=(1 << 32, 1 << 32)),), data=bytes(32)),
        "but the file has",
    ),
    "rows no multiple of the block": (header(tensors=(tensor(shape=(40,), kind=2),), data=bytes(64)), "blocks of 32"),
    "unknown GGML type": (header(tensors=(tensor(kind=4),), data=bytes(32)), "unknown GGML type 4"),
    "offset past the end": (header(tensors=(tensor(offset=HUGE),), data=bytes(32)), "but the file has"),
    "data cut short": (header(tensors=(tensor(),), data=bytes(31)), "needs 32 bytes"),
    "offset off the alignment": (header(tensors=(tensor(offset=4),), data=bytes(64)), "no multiple of the alignment"),
    "overlapping tensors": (
        header(tensors=(tensor("a", (16,)), tensor("b", (8,), offset=32)), data=bytes(128)),
        "'a' and 'b' overlap",
    ),
    "tensor twice": (header(tensors=(tensor("a"), tensor("a", offset=32)), data=bytes(64)), "'a' occurs twice"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_with_the_lie(tmp_path: Path, lie: str) -> None:
    content, fact = LIES[lie]
    path = tmp_path / "lie.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(path)
    assert fact in error.value.fact
    assert str(path) in error.value.fact
    assert error.value.rule
    assert error.value.next_step


def test_the_same_bytes_without_a_lie_are_read(tmp_path: Path) -> None:
    path = tmp_path / "true.gguf"
    tensors = (tensor("a", (16, 2)), tensor("b", (32,), kind=2, offset=128))
    entries = (entry("k", 4, struct.pack("<I", 7)), entry("s", 9, array(8, 2, string("x") + string("ö"))))
    path.write_bytes(header(*entries, tensors=tensors, data=bytes(128 + 18)))
    read = read_gguf_header(path)
    assert read.metadata == {"k": 7, "s": ["x", "ö"]}
    assert [(t.name, t.shape, t.type_name, t.nbytes) for t in read.tensors.values()] == [
        ("a", (2, 16), "F32", 128),
        ("b", (32,), "Q4_0", 18),
    ]
    assert read.tensors["b"].offset == read.tensors["a"].offset + 128


def test_lies_cost_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "lie.gguf"
    tracemalloc.start()
    try:
        for content, _ in LIES.values():
            path.write_bytes(content)
            with pytest.raises(CheckpointError):
                open_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_file_cut_anywhere_is_refused(gguf_file: Callable[..., Path], tmp_path: Path) -> None:
    content = gguf_file().read_bytes()
    path = tmp_path / "cut.gguf"
    sizes = [*range(0, 400, 7), *range(400, len(content), 997), len(content) - 1]
    for size in sizes:
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError):
            open_checkpoint(path)


def test_a_flipped_byte_never_ends_in_another_error(gguf_file: Callable[..., Path], tmp_path: Path) -> None:
    import random

    content = bytearray(gguf_file().read_bytes())
    head = content.index(b"blk.1.ffn_down.weight") + 100
    path = tmp_path / "flipped.gguf"
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        at, bit = rng.randrange(head), 1 << rng.randrange(8)
        content[at] ^= bit
        path.write_bytes(content)
        try:
            open_checkpoint(path).tokenizer_files()
        except CheckpointError:
            refused += 1
        content[at] ^= bit
    assert refused > 100
