"""The native CPU library in ONNX Runtime: one node without a function body, so that only a kernel can run."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from edgekit.native import ort_library
from edgekit.ops.spec import OpSpec, Tolerance
from tests.tools import no_native_compiler

NAME = "onnx_native"
DTYPES = ("float64", "float32", "float16", "bfloat16")
TYPES = {
    "float64": TensorProto.DOUBLE,
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
}


def available() -> str | None:
    """Why this backend cannot run, or None. Sources that do not compile are no reason: they fail in `run`."""
    return no_native_compiler()


@cache
def library() -> Path:
    return ort_library(lambda text: None)


def tolerance(spec: OpSpec, attributes: dict[str, Any], dtype: str) -> Tolerance:
    """As specified, but where a float32 base multiplies inputs that are rounded to 16 bits.

    That moves an input by 2^-1 / 32600 of its block's largest at most, by its root of 1/3 on average: 9e-6. Where the
    largest is 4 deviations of a block's inputs, an output is 3.5e-5 of its deviation off: 1 - cosine is half of the
    square of that, and of thousands of outputs one may be 5 times as far.
    """
    if attributes.get("base_bits") and attributes["input_bits"] == 16 and dtype == "float32":
        return Tolerance(1e-9, 2e-4)
    return spec.tolerances[dtype]


def run(
    spec: OpSpec, attributes: dict[str, Any], inputs: dict[str, np.ndarray], in_place: bool, threads: int = 2
) -> dict[str, np.ndarray]:
    """The outputs by name. In place, every present is bound to the memory of a copy of its past, which is returned."""
    attributes = spec.complete(attributes)
    inputs = {name: np.ascontiguousarray(value).copy() for name, value in inputs.items()}
    shapes = spec.output_shapes(attributes, {name: value.shape for name, value in inputs.items()})
    dtype = inputs[spec.active_inputs(attributes)[0].name].dtype
    outputs = {name: np.empty(shape, dtype) for name, shape in shapes.items()}
    if in_place:
        outputs |= {o.name: inputs[o.past] for o in spec.active_outputs(attributes) if o.past}
    session = session_of(spec, attributes, {n: v.dtype.name for n, v in inputs.items()}, tuple(outputs), threads)
    return run_bound(session, inputs, outputs)


def run_bound(
    session: ort.InferenceSession, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Run with all operands bound where they lie, and return `outputs`."""
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_input(name, "cpu", 0, TYPES[value.dtype.name], value.shape, value.ctypes.data)
    for name, value in outputs.items():
        binding.bind_output(name, "cpu", 0, TYPES[value.dtype.name], value.shape, value.ctypes.data)
    session.run_with_iobinding(binding)
    return outputs


def session_of(
    spec: OpSpec, attributes: dict[str, Any], dtypes: dict[str, str], outputs: tuple[str, ...], threads: int = 2
) -> ort.InferenceSession:
    """A session on the node alone, with the library registered."""
    key = tuple(sorted(attributes.items())), tuple(dtypes.items()), outputs
    return _session(spec.name, *key, threads)


@cache
def _session(
    operator: str,
    attributes: tuple[tuple[str, Any], ...],
    dtypes: tuple[tuple[str, str], ...],
    outputs: tuple[str, ...],
    threads: int,
) -> ort.InferenceSession:
    model = model_of(operator, dict(attributes), dict(dtypes), outputs)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # refusals are checked by the exception
    options.register_custom_ops_library(str(library()))
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def model_of(
    operator: str, attributes: dict[str, Any], dtypes: dict[str, str], outputs: tuple[str, ...]
) -> onnx.ModelProto:
    """A graph of one node whose inputs and outputs have any shape; outputs are of the first input's type."""
    first = next(iter(dtypes.values()))
    graph = helper.make_graph(
        [helper.make_node(operator, list(dtypes), list(outputs), "node", domain="edgekit", **attributes)],
        "one_node",
        [helper.make_tensor_value_info(name, TYPES[dtype], None) for name, dtype in dtypes.items()],
        [helper.make_tensor_value_info(name, TYPES[first], None) for name in outputs],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("edgekit", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
