"""The weights that a bundle's integer codes stand for, under the names of the checkpoint.

Read from the graph by the operators' own definitions, independently of the code that wrote them:
com.microsoft MatMulNBits and GatherBlockQuantized (onnxruntime/docs/ContribOperators.md) and ONNX DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.compressed import CompressedCheckpoint
from edgekit.compress.saten.pieces import Train
from edgekit.errors import BundleError
from edgekit.parity.corrections import SIGNED, rounded_corrections, stored_corrections
from edgekit.parity.packed import EMBEDDING, HEAD, parts_of, unreadable

Floats = npt.NDArray[np.float32]

#: Operators that multiply integers in ways that are not read here: their weights must not be taken for exact ones.
UNREADABLE = {
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "MatMulBnb4",
    "QAttention",
    "QMoE",
}


@dataclass(frozen=True)
class StoredMatrix:
    """A quantised matrix [out, in].

    Attributes:
        bits: of its codes.
        load: makes its float32 values.
        per_output: whether each output has one scale for all of its inputs.
        as_compressed: whether the checkpoint itself stores it compressed, so that nothing was rounded;
        contracted: unless a train's cores were multiplied together, or codes of factors made numbers, in float16.
    """

    bits: int
    load: Callable[[], Floats]
    per_output: bool = False
    as_compressed: bool = False
    contracted: bool = False


class DequantizedWeights:
    """A checkpoint with the bundle's quantised matrices in the place of its own. Gives what loading a model needs.

    Attributes:
        config: the checkpoint's, with an untied head where the bundle stores head and embedding differently.
        contracted: whether cores of trains were multiplied together, or codes of factors made numbers, in float16.
        as_compressed: whether the checkpoint is a compressed one.
    """

    def __init__(self, checkpoint: Checkpoint, stored: dict[str, StoredMatrix]) -> None:
        """`stored`: by checkpoint name, as `stored_matrices` gives them."""
        self._checkpoint, self._stored = checkpoint, stored
        self.contracted = any(matrix.contracted for matrix in stored.values())
        self.as_compressed = isinstance(checkpoint, CompressedCheckpoint)
        self.config = dict(checkpoint.config)
        self._names = checkpoint.names()
        if HEAD in stored and HEAD not in self._names:
            self._names = [*self._names, HEAD]
            self.config["tie_word_embeddings"] = False

    def names(self) -> list[str]:
        """Names of all weights."""
        return list(self._names)

    def spec(self, name: str) -> Any:
        """Shape of a weight."""
        return self._checkpoint.spec(self._original(name))

    def array(self, name: str) -> npt.NDArray[Any]:
        """The bundle's values where it stores codes, else the checkpoint's."""
        if name in self._stored:
            return self._stored[name].load()
        return self._checkpoint.array(self._original(name))

    def original(self, name: str) -> npt.NDArray[Any]:
        """The checkpoint's own values."""
        return self._checkpoint.array(self._original(name))

    def _original(self, name: str) -> str:
        """The checkpoint's tensor behind a weight: a tied head is the embedding."""
        return EMBEDDING if name == HEAD and HEAD not in self._checkpoint.names() else name


def stored_matrices(model: onnx.ModelProto, folder: Path, checkpoint: Checkpoint) -> dict[str, StoredMatrix]:
    """Every quantised matrix of a graph by its name in the checkpoint, in the order of the graph.

    Args:
        model: the graph without its external data, which is read from `folder` when a matrix is loaded.
        checkpoint: gives the rows of each projection in a packed product.

    Raises:
        BundleError: a quantised operator that is not known here, or a matrix that is not the checkpoint's.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    corrections = stored_corrections(model, folder, checkpoint)
    rounded = rounded_corrections(model)
    readers = {"MatMulNBits": _matmul_nbits, "GatherBlockQuantized": _gather, "DequantizeLinear": _dequantize_linear}
    found: dict[str, StoredMatrix] = {}
    for node in model.graph.node:
        if node.op_type in UNREADABLE:
            raise unreadable(node, f"parity does not read {node.op_type}")
        read = readers.get(node.op_type)
        if read is None or node.input[0 if node.op_type != "MatMulNBits" else 1] not in constants:
            continue
        if node.input[0].endswith(SIGNED):
            continue  # codes of factors, which are not a weight's own
        name, matrix, shape = read(node, constants, folder)
        for part, rows, columns in parts_of(name, shape, checkpoint, node):
            if part not in found:
                found[part] = StoredMatrix(matrix.bits, _part_of(matrix.load, rows, columns), matrix.per_output)
    own = checkpoint.records if isinstance(checkpoint, CompressedCheckpoint) else {}
    if corrections.keys() - own.keys():
        raise BundleError(
            "a bundle with factors and single weights is compared with the compressed checkpoint that it was made from",
            f"{checkpoint.path} stores {min(corrections.keys() - own.keys())} otherwise",
            "give the right one with --against CHECKPOINT",
        )
    # Forms that spell the operator out hold the checkpoint's own arrays, which comparing their results tells.
    for name in with_corrections(checkpoint) - corrections.keys():
        found.pop(name, None)
        if isinstance(checkpoint, CompressedCheckpoint) and _has_train(own[name]):
            found[name] = StoredMatrix(16, partial(_contracted, checkpoint, name))
    for name, correction in corrections.items():
        base = found.get(name)
        bits = base.bits if base else correction.base_bits or 16
        found[name] = StoredMatrix(bits, _sum(base.load if base else None, correction.load))
    return {
        name: replace(
            matrix,
            as_compressed=name in own and not _rounded_anew(name, matrix),
            contracted=_has_train(own.get(name)) or name in rounded,
        )
        for name, matrix in found.items()
    }


def with_corrections(checkpoint: Checkpoint) -> set[str]:
    """The matrices that a checkpoint stores as more than codes: forms without the operator spell it out for them."""
    records = checkpoint.records if isinstance(checkpoint, CompressedCheckpoint) else {}
    return {name for name, record in records.items() if {piece["kind"] for piece in record["pieces"]} - {"base"}}


def _rounded_anew(name: str, matrix: StoredMatrix) -> bool:
    """Whether it is a table that TensorRT is to read, which must have a scale per output: no checkpoint's codes fit."""
    return matrix.per_output and name in (EMBEDDING, HEAD)


def _has_train(record: dict[str, Any] | None) -> bool:
    return record is not None and any(piece["kind"] == "train" for piece in record["pieces"])


def _contracted(checkpoint: CompressedCheckpoint, name: str) -> Floats:
    """A matrix whose train is two halves in float16, as every form multiplies by it."""
    total = np.zeros(checkpoint.spec(name).shape, np.float32)
    for piece in checkpoint.matrix(name).pieces:
        if isinstance(piece, Train):
            inputs, outputs = (half.half().float() for half in piece.train().pair())
            total += (inputs @ outputs).T.numpy()
        else:
            total += piece.dense()
    return total


def _sum(base: Callable[[], Floats] | None, correction: Callable[[], Floats]) -> Callable[[], Floats]:
    return correction if base is None else lambda: base() + correction()


def _part_of(load: Callable[[], Floats], rows: slice, inputs: int) -> Callable[[], Floats]:
    return lambda: folded(load()[rows], inputs)


def folded(matrix: Floats, inputs: int) -> Floats:
    """The matrix [out, in] that gives the same product without block sums.

    Columns behind the first `inputs` multiply the sums of equal blocks of the inputs: they belong to each input of
    their block. Whether the graph makes those sums is what comparing its results tells.
    """
    sums = matrix.shape[1] - inputs
    if sums == 0:
        return np.ascontiguousarray(matrix)
    return np.ascontiguousarray(matrix[:, :inputs] + np.repeat(matrix[:, inputs:], inputs // sums, axis=1))


def _matmul_nbits(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], folder: Path
) -> tuple[str, StoredMatrix, tuple[int, int]]:
    """y = x @ Wᵀ; B uint8 [N, K/block, block*bits/8], low bits first; zero points packed the same way by row."""
    attributes = _attributes(node)
    rows, columns, bits, block = (int(attributes[key]) for key in ("N", "K", "bits", "block_size"))
    blocks = -(-columns // block)
    if len(node.input) > 4 and node.input[4]:
        raise unreadable(node, "its columns are permuted by a g_idx")

    def load() -> Floats:
        codes = unpacked(_array(constants[node.input[1]], folder).reshape(rows, -1), bits)
        codes = codes.reshape(rows, blocks, block).astype(np.float32)
        scales = _floats(constants[node.input[2]], folder).reshape(rows, blocks)
        zeros: Any = np.float32(2 ** (bits - 1))
        if len(node.input) > 3 and node.input[3]:
            stored = _array(constants[node.input[3]], folder)
            if stored.dtype == np.uint8:
                stored = unpacked(stored.reshape(rows, -1), bits)[:, :blocks]
            zeros = stored.astype(np.float32).reshape(rows, blocks, 1)
        values = (codes - zeros) * scales[..., None]
        matrix: Floats = values.reshape(rows, -1)[:, :columns]
        return matrix

    return node.name, StoredMatrix(bits, load), (rows, columns)


def _gather(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], folder: Path
) -> tuple[str, StoredMatrix, tuple[int, int]]:
    """Rows of a table [V, hidden] quantised along its last axis; uint8 data holds 8/bits codes a byte."""
    attributes = _attributes(node)
    data = constants[node.input[0]]
    packed = data.data_type == onnx.TensorProto.UINT8
    bits = int(attributes.get("bits", 4)) if packed else 4
    block, rank = int(attributes.get("block_size", 128)), len(data.dims)
    axis = int(attributes.get("quantize_axis", 1)) % rank
    if int(attributes.get("gather_axis", 0)) != 0 or rank != 2 or axis != 1:
        raise unreadable(node, "only tables [rows, columns] with blocks along the columns are read")
    rows = int(data.dims[0])

    def load() -> Floats:
        raw = _array(data, folder)
        codes = unpacked(raw.reshape(rows, -1), bits) if packed else raw.astype(np.int8)
        scales = _floats(constants[node.input[2]], folder).reshape(rows, -1)
        # Signed codes stand for themselves; uint8 holds codes around the middle.
        zeros: Any = np.float32(2 ** (bits - 1) if packed else 0)
        if len(node.input) > 3 and node.input[3]:
            stored = _array(constants[node.input[3]], folder).reshape(rows, -1)
            zeros = (unpacked(stored, bits)[:, : scales.shape[1]] if packed else stored.astype(np.int8)).astype(
                np.float32
            )
        return _scaled(codes.astype(np.float32), scales, zeros, block)

    columns = int(data.dims[1]) * (8 // bits if packed else 1)
    # Named after its module, as in DequantizeLinear: "model.embed_tokens.codes".
    return data.name.rpartition(".")[0], StoredMatrix(bits, load), (rows, columns)


def _dequantize_linear(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], folder: Path
) -> tuple[str, StoredMatrix, tuple[int, int]]:
    """A constant matrix with blocks along its inputs, or with one scale for each output.

    So the axis tells how it lies: [in, out] for blocks along axis 0 or scales along axis 1. It is named after its
    module: "model.layers.0.mlp.down_proj.codes".
    """
    attributes = _attributes(node)
    data = constants[node.input[0]]
    if len(data.dims) != 2:
        raise unreadable(node, f"its constant has {len(data.dims)} axes")
    axis, block = int(attributes.get("axis", 1)) % 2, int(attributes.get("block_size", 0))
    transposed = axis == 0 if block else axis == 1
    bits = 4 if data.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4) else 8

    def load() -> Floats:
        codes, scales = _array(data, folder).astype(np.float32), _floats(constants[node.input[1]], folder)
        zeros = np.zeros_like(scales)
        if len(node.input) > 2 and node.input[2]:
            zeros = _floats(constants[node.input[2]], folder)
        if block == 0 and scales.ndim == 1:
            scales, zeros = (np.expand_dims(array, 1 - axis) for array in (scales, zeros))
        if transposed:
            codes, scales, zeros = (np.atleast_2d(array).T for array in (codes, scales, zeros))
        return _scaled(codes, scales, zeros, block) if block else np.ascontiguousarray((codes - zeros) * scales)

    rows, columns = (int(size) for size in (reversed(data.dims) if transposed else data.dims))
    per_output = not block and len(constants[node.input[1]].dims) == 1
    return data.name.rpartition(".")[0], StoredMatrix(bits, load, per_output), (rows, columns)


def _scaled(codes: npt.NDArray[Any], scales: npt.NDArray[Any], zeros: Any, block: int) -> Floats:
    """(codes - zeros) * scales with both repeated over blocks of columns; codes [rows, columns]."""
    columns = codes.shape[1]
    wide = np.repeat(scales, block, axis=1)[:, :columns]
    offsets = np.repeat(zeros, block, axis=1)[:, :columns] if np.ndim(zeros) else zeros
    return np.ascontiguousarray((codes - offsets) * wide, np.float32)


def unpacked(packed: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """The codes in bytes [rows, n], low bits first: uint8 [rows, n * 8/bits]."""
    if bits == 8:
        return packed.view(np.uint8)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    spread = packed.view(np.uint8)[..., None] >> shifts & np.uint8(2**bits - 1)
    return np.ascontiguousarray(spread.reshape(len(packed), -1))


def _array(tensor: onnx.TensorProto, folder: Path) -> npt.NDArray[Any]:
    return np.asarray(onnx.numpy_helper.to_array(tensor, base_dir=str(folder)))


def _floats(tensor: onnx.TensorProto, folder: Path) -> Floats:
    return _array(tensor, folder).astype(np.float32)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
