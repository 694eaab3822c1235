"""Breaking a copy of a bundle in one place, as a defect of the exporter would."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from edgekit.bundle import Bundle, read_bundle


def copied(bundle: Bundle, destination: Path) -> Bundle:
    """The bundle in another place."""
    shutil.copytree(bundle.path, destination)
    return read_bundle(destination)


def edit_constant(bundle: Bundle, name: str, change: Callable[[np.ndarray], None]) -> None:
    """Change the stored bytes of a constant in place. `change` gets the array as it is stored."""
    model = onnx.load(bundle.graph, load_external_data=False)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        array = onnx.numpy_helper.to_array(tensor).copy()
        change(array)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
        onnx.save(model, bundle.graph)
        return
    entry = {item.key: item.value for item in tensor.external_data}
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    offset, path = int(entry["offset"]), bundle.path / entry["location"]
    data = np.memmap(path, dtype, "r+", offset, tuple(tensor.dims))
    change(data)
    data.flush()


def edit_node(bundle: Bundle, name: str, change: Callable[[onnx.NodeProto], None]) -> None:
    """Change a node of the graph."""
    model = onnx.load(bundle.graph, load_external_data=False)
    (node,) = (node for node in model.graph.node if node.name == name)
    change(node)
    onnx.save(model, bundle.graph)


def set_attribute(name: str, value: object) -> Callable[[onnx.NodeProto], None]:
    """A change for `edit_node`: another value of an attribute that is there."""

    def change(node: onnx.NodeProto) -> None:
        (old,) = (attribute for attribute in node.attribute if attribute.name == name)
        old.CopyFrom(onnx.helper.make_attribute(name, value))

    return change


def constants(bundle: Bundle) -> list[str]:
    """Names of all constants."""
    return [tensor.name for tensor in onnx.load(bundle.graph, load_external_data=False).graph.initializer]
