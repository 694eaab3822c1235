"""The function body in stock ONNX Runtime, which inlines it. bfloat16 is not on its CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edgekit.ops.spec import OpSpec

NAME = "onnx_function"
DTYPES = ("float64", "float32", "float16")
#: The form that TensorRT 10.3 takes; `test_functions.py` runs the other opsets.
OPSET = 20
TYPES = {
    "float64": onnx.TensorProto.DOUBLE,
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "bfloat16": onnx.TensorProto.BFLOAT16,
    "int64": onnx.TensorProto.INT64,
    "int32": onnx.TensorProto.INT32,
}


def available() -> str | None:
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return "onnxruntime is not installed"
    return None


def lacks(spec: OpSpec) -> str | None:
    return None


def run(
    spec: OpSpec, attributes: dict[str, Any], inputs: dict[str, np.ndarray], in_place: bool
) -> dict[str, np.ndarray]:
    generic = next(o.name for o in spec.active_inputs(attributes) if o.dtype == "T")
    assert attributes.get("in_place", 0) == int(in_place)
    session = _session(spec.name, tuple(attributes.items()), inputs[generic].dtype.name)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def one_node_model(spec: OpSpec, attributes: dict[str, Any], dtype: str, opset: int) -> onnx.ModelProto:
    """The operator alone, every size symbolic, with its function body."""

    def value(operand: Any) -> onnx.ValueInfoProto:
        dims = [dim.replace("/", "_over_") for dim in operand.form(attributes).dims]
        own = operand.dtype_under(attributes)
        kind = TYPES[dtype if own == "T" else own]
        return helper.make_tensor_value_info(operand.name, kind, dims)

    inputs, outputs = spec.active_inputs(attributes), spec.active_outputs(attributes)
    node = helper.make_node(
        spec.name, [o.name for o in inputs], [o.name for o in outputs], domain=spec.domain, name="node", **attributes
    )
    graph = helper.make_graph([node], "one_node", [value(o) for o in inputs], [value(o) for o in outputs])
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(spec.domain, spec.version)]
    body = spec.function(opset, attributes, dtype)
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=[body])


@cache
def _session(name: str, attributes: tuple[tuple[str, Any], ...], dtype: str) -> Any:
    import onnxruntime

    from edgekit.ops.registry import operator

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = one_node_model(operator(name), dict(attributes), dtype, OPSET)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
