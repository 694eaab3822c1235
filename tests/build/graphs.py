"""ONNX graphs of one operator, made from its specification."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper

from edgekit import contract
from edgekit.ops.registry import operator
from edgekit.ops.spec import GENERIC
from edgekit.ops.specs.tt_sparse_linear import TILE

ELEMENTS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
}
#: Sizes with no common factors, so that axes that are mixed up show.
SIZES = {"H": 3, "D": 10, "E": 7, "R_Q": 5, "R_K": 2, "R_V": 1, "L": 64, "F": 5, "R": 2, "W": 11, "D/2": 5}
SIZES |= {"K": 28, "O": 9}
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
    "TTSparseLinear": {"low_rank": 1, "bias": 1, "residual": 1, "out_features": SIZES["O"], "rank": SIZES["R"]},
}


def tt_sizes(values: dict[str, Any], inputs: int) -> dict[str, int]:
    """Sizes of the operands of a TTSparseLinear by their letters."""

    def packed(count: int, bits: str, block: str) -> tuple[int, int]:
        return -(-count * values[bits] // 32), -(-count // values[block])

    rank, outputs, entries = values["rank"], values["out_features"], values["entries"]
    found = {"O": outputs, "R": rank, "E": entries, "K": inputs}
    found["A_W"], found["A_S"] = packed(rank * inputs, "factor_bits", "factor_block")
    found["B_W"], found["B_S"] = packed(rank * outputs, "factor_bits", "factor_block")
    found["V_W"], found["V_S"] = packed(entries, "value_bits", "value_block")
    bits = {1: 16 * entries, 2: outputs * inputs, 3: 2 * entries}.get(values["residual"], 0)
    tiles, blocks = -(-outputs // TILE), -(-inputs // values["base_block"])
    found["Q_W"] = tiles * TILE * blocks * values["base_block"] // 32 * values["base_bits"]
    found |= {"Q_S": tiles * TILE * blocks, "Q_Z": -(-tiles * TILE * blocks * values["base_bits"] // 32)}
    return found | {"I_W": -(-bits // 32)}


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
    if name == "TTSparseLinear":
        values["rank"] *= values["low_rank"]
        values["entries"] = (0, 13, 13, SIZES["O"] * SIZES["K"] // 2)[values["residual"]]
        values |= {key: value for key, value in (attributes or {}).items() if key in ("rank", "entries")}
        sizes = tt_sizes(values, SIZES["K"]) | (sizes or {})
    length = SIZES | DYNAMIC | ({"P": CAPACITY} if in_place else {}) | (sizes or {})

    def value_info(operand: Any, dims: tuple[Any, ...] | None) -> onnx.ValueInfoProto:
        own = operand.dtype_under(flags)
        element = (dtypes or {}).get(operand.name, dtype if own == GENERIC else own)
        return helper.make_tensor_value_info(operand.name, ELEMENTS[element], dims)

    # A node whose attributes are not to be had has the operands of one whose are.
    choices = {a.name: a.choices for a in spec.attributes if a.variant}
    flags = {k: v if v in choices.get(k, (v,)) else choices[k][-1] for k, v in values.items()}
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
