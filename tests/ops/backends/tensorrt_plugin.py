"""The TensorRT plugin on a real GPU: an engine of one node, built and run there. Skipped where there is no GPU."""

from __future__ import annotations

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.build.engine import engine_from_onnx
from edgekit.ops.spec import OpSpec
from edgekit.runtime.trt_log import logger
from edgekit.runtime.trt_memory import DeviceBuffers, Pinned
from tests import gpu_tools

NAME = "tensorrt_plugin"
DTYPES = ("float32", "float16", "bfloat16")
MARKS = (pytest.mark.gpu,)
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
}


def available() -> str | None:
    return gpu_tools.no_tensorrt()


def run(
    spec: OpSpec, attributes: dict[str, Any], inputs: dict[str, np.ndarray], in_place: bool
) -> dict[str, np.ndarray]:
    """Outputs by name; in place, every present is bound to the memory of its past."""
    attributes = spec.complete(attributes)
    shapes = spec.output_shapes(attributes, {name: value.shape for name, value in inputs.items()})
    model = static_model(spec, attributes, inputs)
    engine = _engine(model.SerializeToString(), spec.name)
    dtype = next(inputs[o.name].dtype for o in spec.active_inputs(attributes) if o.dtype == "T")
    pasts = {o.name: o.past for o in spec.active_outputs(attributes) if o.past} if in_place else {}

    cuda = gpu_tools.cuda()
    stream, buffers = cuda.stream(), DeviceBuffers(cuda)
    fresh = {name: np.zeros(shape, dtype) for name, shape in shapes.items() if name not in pasts}
    arrays = inputs | fresh
    buffers.allocate([array.nbytes for array in arrays.values()])
    places = dict(zip(arrays, buffers.addresses, strict=True))
    places |= {name: places[past] for name, past in pasts.items()}
    context = engine.create_execution_context()
    pinned = {name: Pinned(cuda, array.shape, array.dtype) for name, array in arrays.items()}
    for name, array in arrays.items():
        pinned[name].array[...] = array
        cuda.copy(places[name], pinned[name].address, array.nbytes, stream)
    for name, address in places.items():
        assert context.set_tensor_address(name, address)
    assert context.execute_async_v3(stream), logger(gpu_tools.tensorrt()).reason()
    found = {}
    for name in shapes:
        host = pinned[pasts.get(name, name)]
        cuda.copy(host.address, places[name], host.bytes, stream)
    cuda.synchronize(stream)
    for name in shapes:
        found[name] = pinned[pasts.get(name, name)].array.copy()
    for each in pinned.values():
        each.free()
    buffers.free()
    cuda.destroy_stream(stream)
    return found


def static_model(spec: OpSpec, attributes: dict[str, Any], inputs: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The node alone without a body, every size fixed."""
    outputs = [operand.name for operand in spec.active_outputs(attributes)]
    node = helper.make_node(spec.name, list(inputs), outputs, name="node", domain=spec.domain, **attributes)
    values = [
        helper.make_tensor_value_info(name, TYPES[array.dtype.name], array.shape) for name, array in inputs.items()
    ]
    generic = next(inputs[o.name].dtype.name for o in spec.active_inputs(attributes) if o.dtype == "T")
    # Without a shape: the plugin tells.
    results = [helper.make_tensor_value_info(name, TYPES[generic], None) for name in outputs]
    graph = helper.make_graph([node], spec.name, values, results)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(spec.domain, spec.version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@cache
def _engine(model: bytes, name: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / hashlib.sha256(model).hexdigest()
        source.write_bytes(model)
        engine_from_onnx(
            source,
            target,
            axes={},
            plugin_libraries=[gpu_tools.library()],
            expected_plugins={name: 1},
            backend=gpu_tools.backend(),
        )
        return _runtime().deserialize_cuda_engine(target.read_bytes())


@cache
def _runtime() -> Any:
    trt = gpu_tools.tensorrt()
    runtime = trt.Runtime(logger(trt))
    assert runtime.get_plugin_registry().load_library(str(gpu_tools.library())) is not None
    return runtime
