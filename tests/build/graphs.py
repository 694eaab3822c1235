"""ONNX graphs of one operator, made from its specification."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper

from edgekit import contract
from edgekit.ops.registry import operator
from edgekit.ops.spec import GENERIC

ELEMENTS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
}
#: Sizes with no common factors, so that axes that are mixed up show.
SIZES = {"H": 3, "D": 10, "E": 7, "R_Q": 5, "R_K": 2, "R_V": 1, "L": 64, "F": 5, "R": 2, "W": 11, "D/2": 5}
SIZES |= {"K": 26, "O": 9, "Z": 6, "Z/2": 3}
CAPACITY = 48
DYNAMIC = {
    "B": contract.AXIS_BATCH,
    "S": contract.AXIS_SEQUENCE,
    "P": contract.AXIS_PAST,
    "T": contract.AXIS_TOTAL,
}
FACTORED = {"factored_query": 1, "contextual_key": 1, "contextual_value": 1}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "TPAAttention": {"scale": 0.25, "value_scale": 0.5, **FACTORED},
    "TPAAppend": {},
    "TTSparseLinear": {"low_rank": 1, "bias": 1},
}


def one_operator(
    name: str,
    dtype: str,
    *,
    in_place: bool = False,
    function: bool = True,
    attributes: dict[str, Any] | None = None,
    sizes: dict[str, int] | None = None,
    dtypes: dict[str, str] | None = None,
    leave_out: str = "",
    opset: int = 20,
) -> onnx.ModelProto:
    """A graph of one node whose operands are the graph's inputs and outputs.

    Args:
        attributes: values that differ from ATTRIBUTES.
        sizes: by axis letter; an axis of DYNAMIC given here is static.
        dtypes: element types of inputs that differ from the specification.
        leave_out: an attribute that the node lacks.
    """
    spec = operator(name)
    placed = {"in_place": int(in_place)} if any(output.past for output in spec.outputs) else {}
    values = spec.complete(ATTRIBUTES[name] | placed | (attributes or {}))
    length = SIZES | DYNAMIC | ({"P": CAPACITY} if in_place else {}) | (sizes or {})

    def value_info(operand: Any, dims: tuple[Any, ...] | None) -> onnx.ValueInfoProto:
        element = (dtypes or {}).get(operand.name, dtype if operand.dtype == GENERIC else operand.dtype)
        return helper.make_tensor_value_info(operand.name, ELEMENTS[element], dims)

    flags = {key: value if value in (0, 1) else 1 for key, value in values.items()}
    inputs = [value_info(o, tuple(length[d] for d in o.form(flags).dims)) for o in spec.active_inputs(flags)]
    outputs = [value_info(o, None) for o in spec.active_outputs(flags)]
    written = {key: value for key, value in values.items() if key != leave_out}
    node = helper.make_node(
        spec.name, [i.name for i in inputs], [o.name for o in outputs], name="the_node", domain=spec.domain, **written
    )
    graph = helper.make_graph([node], name, inputs, outputs)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(spec.domain, spec.version)]
    functions = [spec.function(opset, values, dtype)] if function else []
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)
