"""Writing a rewritten graph: model.onnx holds the structure, model.onnx.data the weights; or another pair of files.

Each weight is made and written once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgekit.errors import ExportError
from edgekit.rewrite.rules.attach_functions import with_overloads
from edgekit.rewrite.weights import Array, Weight

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
#: The second model of a bundle with draft heads.
DRAFT_FILE = "draft.onnx"

#: External weights start on a page, so that the runtime can map the file instead of reading it.
ALIGNMENT = 4096
#: Smaller constants stay in the model file, where shape inference can see them.
INLINE_BYTES = 1024

_SUB_BYTE = {np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.uint4)}


def data_file(file: str) -> str:
    """The file of a model's weights: "model.onnx.data" of "model.onnx"."""
    return f"{file}.data"


def write_model(
    graph: gs.Graph, folder: Path, progress: Callable[[int, int], None] | None = None, file: str = MODEL_FILE
) -> onnx.ModelProto:
    """Write `model.onnx` and `model.onnx.data` into `folder` and return the structure.

    Constants with equal keys share one place in the data file. Holds one weight in memory at a time.

    Args:
        progress: called with (constants written, constants in all) before the first and after each.
        file: name of the model in the place of model.onnx.

    Raises:
        ExportError: the finished model does not pass the ONNX checker.
    """
    weights = _deferred(graph)
    if progress is not None:
        progress(0, len(weights))
    places: dict[Hashable, tuple[int, int]] = {}
    with open(folder / data_file(file), "wb") as data:
        for index, constant in enumerate(weights):
            weight: Weight = constant._values
            inline = weight.nbytes < INLINE_BYTES
            if inline:
                weight.tensor = onnx.numpy_helper.from_array(weight.load(), constant.name)
            else:
                if weight.key not in places:
                    data.seek(-(-data.tell() // ALIGNMENT) * ALIGNMENT)
                    raw = packed_bytes(weight.load())
                    places[weight.key] = (data.tell(), len(raw))
                    data.write(raw)
                weight.tensor = _reference(constant.name, weight, data_file(file), *places[weight.key])
            if progress is not None:
                progress(index + 1, len(weights))
    _drop_unused_domains(graph)
    model = with_overloads(gs.export_onnx(graph, do_type_check=False))
    onnx.save(model, folder / file)
    return model


def _drop_unused_domains(graph: gs.Graph) -> None:
    """Import the standard operators and the domains that nodes use, not those whose operators rules replaced."""
    used = {node.domain or "" for part in (graph, *graph.subgraphs(recursive=True)) for node in part.nodes}
    used |= {function.domain for function in graph.functions}
    graph.import_domains = [entry for entry in graph.import_domains or [] if entry.domain in used | {""}] or None


def packed_bytes(array: Array) -> bytes | memoryview:
    """The array as ONNX stores it: little endian, two 4-bit integers to a byte, the first in the low half."""
    if array.dtype in _SUB_BYTE:
        nibbles = array.reshape(-1).view(np.uint8) & 0x0F
        if nibbles.size % 2:
            nibbles = np.append(nibbles, np.uint8(0))
        array = nibbles[0::2] | (nibbles[1::2] << 4)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _deferred(graph: gs.Graph) -> list[gs.Constant]:
    """Constants with deferred values, in the order in which the graph first reads them."""
    found: dict[int, gs.Constant] = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant) and isinstance(tensor._values, Weight):
                found.setdefault(id(tensor), tensor)
    return list(found.values())


def _reference(name: str, weight: Weight, file: str, offset: int, length: int) -> onnx.TensorProto:
    """A tensor whose bytes are in the data file called `file`."""
    tensor = onnx.TensorProto(name=name, dims=weight.shape, data_location=onnx.TensorProto.EXTERNAL)
    tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
    for key, value in (("location", file), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def check_model(path: Path) -> None:
    """Raise ExportError unless the ONNX checker accepts the model file (structure, types, operator versions)."""
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ExportError(
            "the exported model must pass the ONNX checker", str(error).splitlines()[0], "report this model"
        ) from error
