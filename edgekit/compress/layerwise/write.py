"""The compressed checkpoint: parts and everything else in one file of weights, config.json and the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.compressed import KEY, RECORD, VERSION
from edgekit.checkpoint.interface import Array
from edgekit.checkpoint.pooling_files import pooling_files
from edgekit.checkpoint.safetensors_header import DTYPES, INTEGERS, read_safetensors_header
from edgekit.checkpoint.safetensors_write import Planned, planned, write_safetensors
from edgekit.compress.blockwise import BlockQuantized, quantize_blocks
from edgekit.compress.layerwise.fit import records_of
from edgekit.compress.layerwise.options import EXACT_TYPES, is_table, weight_names
from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.pieces import Base, base

WEIGHTS, CONFIG = "model.safetensors", "config.json"
#: What a matrix is called that keeps the integers that it had.
STORED = "stored"


def write_compressed(
    folder: Path, checkpoint: Checkpoint, parts: Sequence[Path], embeddings: str = "keep"
) -> dict[str, dict[str, Any]]:
    """Write model.safetensors, config.json and the tokenizer into `folder`, one tensor in memory at a time.

    Args:
        parts: files of `edgekit.compress.layerwise.fit`.
        embeddings: as `CompressOptions.embeddings`.

    Returns:
        the records of all matrices in config.json.
    """
    records: dict[str, dict[str, Any]] = {}
    for part in parts:
        records.update(records_of(part))
    tensors: list[Planned] = []
    for name in weight_names(checkpoint):
        if name in records:
            continue
        kept = exactly_stored(checkpoint, name)
        if kept is None and embeddings == "int8" and is_table(checkpoint, name):
            kept = rounded_table(checkpoint, name)
        if kept is None:
            tensors.append(plain(checkpoint, name))
        else:
            records[name] = {**kept.record(), "bytes": kept.nbytes}
            tensors += [planned(f"{name}/{key}", array) for key, array in kept.arrays().items()]
    for part in parts:
        tensors += _copied(part)
    write_safetensors(folder / WEIGHTS, tensors)
    write_rest(folder, checkpoint, {**checkpoint.config, KEY: {"version": VERSION, "matrices": records}})
    return records


def write_rest(folder: Path, checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    """config.json, the tokenizer, and what says how embeddings are pooled."""
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    for name, contents in checkpoint.tokenizer_files().items():
        (folder / name).write_bytes(contents)
    if checkpoint.path.is_dir():
        for name in pooling_files(checkpoint.path):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes((checkpoint.path / name).read_bytes())


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """compression.json."""
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def exactly_stored(checkpoint: Checkpoint, name: str) -> CompressedMatrix | None:
    """A matrix that a GGUF stores as integers around a middle, as exactly that; None for any other."""
    spec = checkpoint.spec(name)
    blocks = checkpoint.blocks(name) if spec.dtype in EXACT_TYPES and len(spec.shape) == 2 else None
    if blocks is None or blocks.minimum is not None:
        return None
    middle = 2 ** (blocks.bits - 1)
    codes = (blocks.codes.astype(np.int16) - blocks.zero_point + middle).astype(np.uint8)
    zeros = np.full(blocks.scale.shape, middle, np.uint8)
    inputs = codes.shape[1] * codes.shape[2]
    base = Base(BlockQuantized(codes, blocks.scale.astype(np.float32), zeros, blocks.bits, inputs))
    return CompressedMatrix(STORED, (spec.shape[0], spec.shape[1]), (base,), 0.0, 0.0, 0.0)


def rounded_table(checkpoint: Checkpoint, name: str) -> CompressedMatrix:
    """A table at 8 bits with a scale per 32 numbers, as `edgekit export --dtype int8` rounds it."""
    weight = np.array(checkpoint.array(name), np.float32)
    piece = base(quantize_blocks(weight, 8, 32, symmetric=True))
    error = float(np.linalg.norm(weight - piece.dense())) / max(float(np.linalg.norm(weight)), 1e-30)
    return CompressedMatrix("round", (weight.shape[0], weight.shape[1]), (piece,), error, error, 0.0)


def plain(checkpoint: Checkpoint, name: str) -> Planned:
    """A weight in its own floating-point type; float32 for integers."""
    spec = checkpoint.spec(name)
    dtype = spec.dtype if spec.dtype in ("float16", "bfloat16") else "float32"

    def load() -> Array:
        array: Array = np.asarray(checkpoint.array(name))
        return array if array.dtype.name == dtype else array.astype(np.float32)

    return Planned(name, dtype, spec.shape, load)


def _copied(part: Path) -> list[Planned]:
    """A part's tensors."""

    def reading(offset: int, nbytes: int, dtype: str, shape: tuple[int, ...]) -> Callable[[], Array]:
        def load() -> Array:
            with part.open("rb") as file:
                file.seek(offset)
                return np.frombuffer(file.read(nbytes), dtype).reshape(shape)

        return load

    tensors = []
    for name, found in read_safetensors_header(part).items():
        dtype = INTEGERS.get(found.dtype) or DTYPES[found.dtype][0]
        tensors.append(Planned(name, dtype, found.shape, reading(found.offset, found.nbytes, dtype, found.shape)))
    return tensors
