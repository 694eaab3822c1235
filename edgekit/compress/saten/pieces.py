"""What a compressed matrix [N out, K in] is the sum of: a base of few bits, factors, and a sparse matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from edgekit.compress.blockwise import BlockQuantized, Floats
from edgekit.compress.saten.factorisation import Factorisation
from edgekit.compress.saten.sparse_format import Positions, Sparse
from edgekit.compress.saten.storage import Arrays, Stored, from_record, half, packed, unpacked
from edgekit.compress.saten.tensor_train import TensorTrain


class Piece(Protocol):
    """One summand."""

    @property
    def nbytes(self) -> int:
        """Of its arrays, as they are stored."""

    def dense(self) -> Floats:
        """float32 [N, K]."""

    def arrays(self) -> Arrays:
        """What is stored, by name."""

    def record(self) -> dict[str, Any]:
        """All else, for JSON; "kind" names the class."""


@dataclass(frozen=True)
class Base:
    """Block-quantised weights with float16 scales: codes [N, K/block, block] and zero points packed without gaps."""

    KIND = "base"

    quantized: BlockQuantized

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays().values())

    def dense(self) -> Floats:
        return self.quantized.dequantized()

    def arrays(self) -> Arrays:
        found = self.quantized
        return {
            "codes": packed(found.codes, found.bits),
            "scales": found.scales.astype(np.float16),
            "zero_points": packed(found.zero_points, found.bits),
        }

    def record(self) -> dict[str, Any]:
        found = self.quantized
        return {"kind": self.KIND, "bits": found.bits, "inputs": found.inputs, "shape": list(found.codes.shape)}


def base(quantized: BlockQuantized) -> Base:
    """The scales become what float16 holds of them."""
    scales = half(quantized.scales).astype(np.float32)
    return Base(BlockQuantized(quantized.codes, scales, quantized.zero_points, quantized.bits, quantized.inputs))


def base_bytes(rows: int, inputs: int, bits: int, block: int) -> int:
    """What a base takes: codes, scales and zero points."""
    blocks = rows * -(-inputs // block)
    return -(-blocks * block * bits // 8) + 2 * blocks + -(-blocks * bits // 8)


@dataclass(frozen=True)
class Pair:
    """Low rank, the contracted form of a train: Ŵ = (A B)ᵀ with A stored as [r, K] and B as [r, N]."""

    KIND = "pair"

    inputs: Stored
    outputs: Stored

    @property
    def rank(self) -> int:
        return self.inputs.shape[0]

    @property
    def nbytes(self) -> int:
        return self.inputs.nbytes + self.outputs.nbytes

    def dense(self) -> Floats:
        product: Floats = self.outputs.values().T @ self.inputs.values()
        return product

    def arrays(self) -> Arrays:
        return _prefixed({"a": self.inputs, "b": self.outputs})

    def record(self) -> dict[str, Any]:
        return {"kind": self.KIND, "a": self.inputs.record(), "b": self.outputs.record()}


@dataclass(frozen=True)
class Train:
    """A tensor train of Wᵀ, its cores stored one by one."""

    KIND = "train"

    shape: Factorisation
    cores: tuple[Stored, ...]

    @property
    def nbytes(self) -> int:
        return sum(core.nbytes for core in self.cores)

    def train(self) -> TensorTrain:
        """With cores in float32."""
        return TensorTrain(self.shape, tuple(torch.from_numpy(core.values()) for core in self.cores))

    def dense(self) -> Floats:
        matrix: Floats = self.train().matrix().T.contiguous().numpy()
        return matrix

    def arrays(self) -> Arrays:
        return _prefixed({f"core{k}": core for k, core in enumerate(self.cores)})

    def record(self) -> dict[str, Any]:
        cores = [core.record() for core in self.cores]
        modes = {"inputs": list(self.shape.inputs), "outputs": list(self.shape.outputs)}
        return {"kind": self.KIND, **modes, "cores": cores}


def piece_from(record: Mapping[str, Any], arrays: Arrays) -> Piece:
    """The piece whose record and arrays these are. ValueError for another kind."""
    if record["kind"] not in _READERS:
        raise ValueError(f"no piece is of kind {record['kind']!r}")
    return _READERS[record["kind"]](record, arrays)


def _read_base(record: Mapping[str, Any], arrays: Arrays) -> Piece:
    (rows, blocks, block), bits = record["shape"], record["bits"]
    codes = unpacked(arrays["codes"], bits, rows * blocks * block).reshape(rows, blocks, block)
    zeros = unpacked(arrays["zero_points"], bits, rows * blocks).reshape(rows, blocks)
    return Base(BlockQuantized(codes, arrays["scales"].astype(np.float32), zeros, bits, record["inputs"]))


def _read_pair(record: Mapping[str, Any], arrays: Arrays) -> Piece:
    return Pair(*(from_record(record[side], _of(arrays, f"{side}_")) for side in ("a", "b")))


def _read_train(record: Mapping[str, Any], arrays: Arrays) -> Piece:
    shape = Factorisation(tuple(record["inputs"]), tuple(record["outputs"]))
    cores = enumerate(record["cores"])
    return Train(shape, tuple(from_record(core, _of(arrays, f"core{k}_")) for k, core in cores))


def _read_sparse(record: Mapping[str, Any], arrays: Arrays) -> Piece:
    rows, columns = record["shape"]
    where = {name: array for name, array in arrays.items() if not name.startswith("value_")}
    places = Positions(record["format"], (rows, columns), tuple(record["group"]), where)
    return Sparse(places, from_record(record["values"], _of(arrays, "value_")))


_READERS: dict[str, Callable[[Mapping[str, Any], Arrays], Piece]] = {
    Base.KIND: _read_base,
    Pair.KIND: _read_pair,
    Train.KIND: _read_train,
    Sparse.KIND: _read_sparse,
}


def _prefixed(parts: Mapping[str, Stored]) -> Arrays:
    return {f"{part}_{name}": array for part, store in parts.items() for name, array in store.arrays.items()}


def _of(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
