"""The matrices that edgekit::TTSparseLinear nodes of a bundle multiply by, under the names of the checkpoint.

Read by the operator's definition (`edgekit inspect op TTSparseLinear`), independently of the code that wrote them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgekit import contract
from edgekit.checkpoint import Checkpoint
from edgekit.errors import BundleError

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

OPERATOR = "TTSparseLinear"
#: Of the attribute "residual".
_COLUMNS, _BITMAP, _GROUPS = 1, 2, 3
_GROUP = 4
#: What ends the names of a pair's constants where two products stand for the operator.
LEFT, RIGHT = "a_t", "b_numbers"
#: The same where they are codes.
SIGNED = (".a_signed", ".b_signed")


def stored_corrections(model: onnx.ModelProto, folder: Path, checkpoint: Checkpoint) -> dict[str, Callable[[], Floats]]:
    """Weight of the checkpoint -> what makes the matrix [out, in] of its operator.

    Args:
        checkpoint: tells how many inputs a matrix has.

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
            weight = f"{names[0].rpartition('.')[0]}.weight"
            if weight not in known:
                raise BundleError(
                    "a bundle is compared with the checkpoint that it was made from",
                    f"{checkpoint.path} has no weight {weight}",
                    "give the right one with --against CHECKPOINT",
                )
            found[weight] = _reader(node, constants, folder, checkpoint.spec(weight).shape[1])
    return {**found, **_products(constants, folder)}


def _products(constants: dict[str, onnx.TensorProto], folder: Path) -> dict[str, Callable[[], Floats]]:
    """Of pairs in plain numbers that forms without the operator multiply by: x, a transposed, b."""
    scopes = [name.removesuffix(f".{LEFT}") for name in constants if name.endswith(f".{LEFT}")]

    def reader(scope: str) -> Callable[[], Floats]:
        def load() -> Floats:
            tensors = (constants[f"{scope}.{side}"] for side in (LEFT, RIGHT))
            left, right = (onnx.numpy_helper.to_array(each, base_dir=str(folder)) for each in tensors)
            matrix: Floats = (left.astype(np.float32) @ right.astype(np.float32)).T
            return matrix

        return load

    return {f"{scope}.weight": reader(scope) for scope in scopes}


def rounded_corrections(model: onnx.ModelProto) -> set[str]:
    """Weights whose pair is in numbers of float16."""
    half = onnx.TensorProto.FLOAT16
    names = [tensor.name for tensor in model.graph.initializer if tensor.data_type == half]
    return {f"{name.removesuffix(f'.{LEFT}')}.weight" for name in names if name.endswith(f".{LEFT}")}


def _reader(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], folder: Path, inputs: int
) -> Callable[[], Floats]:
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    # Operands are named after themselves behind their module: "model.layers.0.mlp.up_proj.a_scales".
    operands = {name.rpartition(".")[2]: constants[name] for name in node.input[1:]}

    def load() -> Floats:
        arrays = {name: onnx.numpy_helper.to_array(tensor, base_dir=str(folder)) for name, tensor in operands.items()}
        return _matrix(attributes, arrays, inputs)

    return load


def _matrix(attributes: dict[str, Any], arrays: dict[str, Array], inputs: int) -> Floats:
    outputs = int(attributes["out_features"])
    dense = np.zeros((outputs, inputs), np.float32)
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
