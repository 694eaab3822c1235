"""The matrices that edgekit::TTSparseLinear nodes of a bundle multiply by, under the names of the checkpoint.

Read by the operator's definition (`edgekit inspect op TTSparseLinear`), independently of the code that wrote them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgekit import contract
from edgekit.checkpoint import Checkpoint
from edgekit.errors import BundleError
from edgekit.parity.packed import parts_of, weights_of

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

OPERATOR = "TTSparseLinear"
#: Of a base: outputs of a tile, inputs of a chunk.
_TILE, _CHUNK = 16, 32
#: Of the attribute "residual".
_COLUMNS, _BITMAP, _GROUPS = 1, 2, 3
_GROUP = 4
#: What ends the names of a pair's constants where two products stand for the operator.
LEFT, RIGHT = "a_t", "b_numbers"
#: The same where they are codes.
SIGNED = (".a_signed", ".b_signed")


@dataclass(frozen=True)
class Correction:
    """What an operator multiplies by, or adds to another product.

    Attributes:
        load: makes the float32 matrix [out, in].
        base_bits: of the codes that are a part of it; 0 for none.
    """

    load: Callable[[], Floats]
    base_bits: int = 0


def stored_corrections(model: onnx.ModelProto, folder: Path, checkpoint: Checkpoint) -> dict[str, Correction]:
    """Weight of the checkpoint -> the matrix of its operator, or the rows that are its own.

    Args:
        checkpoint: tells the sizes of its matrices.

    Raises:
        BundleError: a node whose operands are not constants, or of no matrix of the checkpoint.
    """
    known = set(checkpoint.names())
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == OPERATOR and node.domain == contract.OPERATOR_DOMAIN:
            names = node.input[1:]
            if not names or any(name not in constants for name in names):
                raise BundleError(
                    "parity must be able to read every weight of a bundle",
                    f"{OPERATOR} {node.name!r} has operands that are no constants",
                    "export the bundle again with this version of edgekit",
                )
            scope = names[0].rpartition(".")[0]
            weights = weights_of(scope)
            for weight in weights:
                if weight not in known:
                    raise BundleError(
                        "a bundle is compared with the checkpoint that it was made from",
                        f"{checkpoint.path} has no weight {weight}",
                        "give the right one with --against CHECKPOINT",
                    )
            attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            inputs = checkpoint.spec(weights[0]).shape[1]
            load = _reader(node, attributes, constants, folder, inputs)
            for weight, rows, _ in parts_of(scope, (attributes["out_features"], inputs), checkpoint, node):
                found[weight] = Correction(_rows(load, rows), int(attributes.get("base_bits", 0)))
    return {**found, **_products(constants, folder)}


def _rows(load: Callable[[], Floats], rows: slice) -> Callable[[], Floats]:
    return lambda: load()[rows]


def _products(constants: dict[str, onnx.TensorProto], folder: Path) -> dict[str, Correction]:
    """Of pairs in plain numbers that forms without the operator multiply by: x, a transposed, b."""
    scopes = [name.removesuffix(f".{LEFT}") for name in constants if name.endswith(f".{LEFT}")]

    def reader(scope: str) -> Callable[[], Floats]:
        def load() -> Floats:
            tensors = (constants[f"{scope}.{side}"] for side in (LEFT, RIGHT))
            left, right = (onnx.numpy_helper.to_array(each, base_dir=str(folder)) for each in tensors)
            matrix: Floats = (left.astype(np.float32) @ right.astype(np.float32)).T
            return matrix

        return load

    return {f"{scope}.weight": Correction(reader(scope)) for scope in scopes}


def rounded_corrections(model: onnx.ModelProto) -> set[str]:
    """Weights whose pair is in numbers of float16."""
    half = onnx.TensorProto.FLOAT16
    names = [tensor.name for tensor in model.graph.initializer if tensor.data_type == half]
    return {f"{name.removesuffix(f'.{LEFT}')}.weight" for name in names if name.endswith(f".{LEFT}")}


def _reader(
    node: onnx.NodeProto,
    attributes: dict[str, Any],
    constants: dict[str, onnx.TensorProto],
    folder: Path,
    inputs: int,
) -> Callable[[], Floats]:
    # Operands are named after themselves behind their module: "model.layers.0.mlp.up_proj.a_scales".
    operands = {name.rpartition(".")[2]: constants[name] for name in node.input[1:]}

    def load() -> Floats:
        arrays = {name: onnx.numpy_helper.to_array(tensor, base_dir=str(folder)) for name, tensor in operands.items()}
        return _matrix(attributes, arrays, inputs)

    return load


def _matrix(attributes: dict[str, Any], arrays: dict[str, Array], inputs: int) -> Floats:
    outputs = int(attributes["out_features"])
    dense = np.zeros((outputs, inputs), np.float32)
    if attributes.get("base_bits"):
        dense += _base(attributes, arrays, outputs, inputs)
    if attributes["low_rank"]:
        rank = int(attributes["rank"])
        a = _numbers(arrays, "a", attributes, "factor", rank * inputs).reshape(rank, inputs)
        b = _numbers(arrays, "b", attributes, "factor", rank * outputs).reshape(rank, outputs)
        dense += b.T @ a
    if attributes["residual"]:
        count = int(attributes["entries"])
        values = _numbers(arrays, "values", attributes, "value", count)
        dense.reshape(-1)[_places(attributes, arrays, count, outputs, inputs)] += values
    return dense


def _base(attributes: dict[str, Any], arrays: dict[str, Array], outputs: int, inputs: int) -> Floats:
    """scale (code - zero point), out of whole tiles and blocks."""
    bits, block = int(attributes["base_bits"]), int(attributes["base_block"])
    tiles, blocks = -(-outputs // _TILE), -(-inputs // block)
    stored = arrays["base"].astype("<i4").view(np.uint8).reshape(tiles, -1, bits, _TILE, 4).astype(np.int64)
    codes = np.empty((tiles, _TILE, stored.shape[1], _CHUNK), np.int64)
    for place in range(_CHUNK):
        group, byte = divmod(place, 4)
        if bits == 3 and group >= 6:
            found = stored[:, :, group - 6, :, byte] >> 6 | (stored[:, :, 2, :, byte] >> group & 1) << 2
        else:
            word, field = divmod(group, 8 // bits)
            found = stored[:, :, word, :, byte] >> bits * field & (2**bits - 1)
        codes[..., place] = found.transpose(0, 2, 1)
    zeros = np.full((tiles, blocks, _TILE), 2 ** (bits - 1))
    if attributes["zero_points"]:
        planes = arrays["base_zeros"].astype("<i4").view("<u2")[: tiles * blocks * bits].reshape(tiles, blocks, bits)
        each = planes[..., None] >> np.arange(_TILE) & 1
        zeros = (each << np.arange(bits)[:, None]).sum(2)
    scales = arrays["base_scales"].astype(np.float32).reshape(tiles, blocks, _TILE)
    by_row = (numbers.transpose(0, 2, 1).reshape(-1, blocks, 1) for numbers in (zeros, scales))
    points, factors = by_row
    values = (codes.reshape(len(points), blocks, block) - points).astype(np.float32) * factors
    matrix: Floats = values.reshape(len(values), -1)[:outputs, :inputs]
    return matrix


def _numbers(arrays: dict[str, Array], name: str, attributes: dict[str, Any], what: str, count: int) -> Floats:
    bits = int(attributes[f"{what}_bits"])
    if bits not in (4, 8):
        return arrays[name].astype(np.float32).reshape(-1)
    codes = _fields(arrays[name], bits)[:count].astype(np.float32) - 2 ** (bits - 1)
    scales = arrays["value_scales" if name == "values" else f"{name}_scales"].astype(np.float32)
    numbers: Floats = codes * np.repeat(scales, int(attributes[f"{what}_block"]))[:count]
    return numbers


def _fields(words: Array, bits: int) -> npt.NDArray[np.int64]:
    """Numbers of so many bits, the lowest of each 32-bit word first."""
    shifts = np.arange(0, 32, bits, dtype=np.int64)
    fields: npt.NDArray[np.int64] = (words.view(np.uint32).astype(np.int64)[:, None] >> shifts) & (2**bits - 1)
    return fields.reshape(-1)


def _places(
    attributes: dict[str, Any], arrays: dict[str, Array], count: int, outputs: int, inputs: int
) -> npt.NDArray[np.int64]:
    """Where each entry stands in the flattened matrix."""
    words, residual = arrays["positions"], attributes["residual"]
    if residual == _BITMAP:
        return np.flatnonzero(_fields(words, 1)[: outputs * inputs])
    if residual == _COLUMNS:
        starts = np.append(arrays["starts"].astype(np.int64), count)
        return np.repeat(np.arange(outputs), np.diff(starts)) * inputs + _fields(words, 16)[:count]
    assert residual == _GROUPS
    places: npt.NDArray[np.int64] = np.arange(count) // int(attributes["group_kept"]) * _GROUP
    return places + _fields(words, 2)[:count]
