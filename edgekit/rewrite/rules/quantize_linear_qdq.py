"""MatMul(x, W) with a quantised W → MatMul(x, DequantizeLinear(codes, scales)), blocked along the inputs: standard
ONNX, which TensorRT and ONNX Runtime fuse into their own low-bit products."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.match import linear_weight, produced_by, scope_of, variable, weight_of
from edgekit.rewrite.quantized import QuantizedParts
from edgekit.rewrite.rule import Context, Outcome, Rule
from edgekit.rewrite.weights import Weight


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    if context.quantized is None:
        return outcome
    for node in list(graph.nodes):
        weight, name = _matrix(node)
        if weight is None:
            continue
        parts = QuantizedParts.of(weight, context)
        if parts is None:
            outcome.refuse(node, f"{', '.join(weight.sources) or 'its matrix'} is not quantised")
            continue
        if not parts.symmetric:
            outcome.refuse(node, "its zero points are not all the middle code, and TensorRT takes none")
            continue
        if parts.inputs % parts.block:
            outcome.refuse(node, f"{parts.inputs} inputs are not whole blocks of {parts.block}")
            continue
        scope = scope_of(name)
        dequantized = variable(scope + ".dequantized")
        codes = gs.Constant(scope + ".codes", parts.signed_codes())
        scales = gs.Constant(scope + ".scales", parts.transposed_scales())
        attributes = {"axis": 0, "block_size": parts.block}
        graph.nodes.append(
            gs.Node("DequantizeLinear", scope + ".dequantize", attributes, [codes, scales], [dequantized])
        )
        node.inputs = [node.inputs[0], dequantized]
        outcome.fired += 1
    return outcome


def _matrix(node: gs.Node) -> tuple[Weight | None, str]:
    """The matrix [in, out] that a MatMul multiplies by, directly or transposed at run time, and its name."""
    weight = linear_weight(node)
    if weight is not None:
        return weight, str(node.inputs[1].name)
    transpose = produced_by(node.inputs[1], "Transpose") if node.op == "MatMul" else None
    table = weight_of(transpose.inputs[0]) if transpose is not None else None
    return (table.transposed(), "lm_head.weight") if table is not None else (None, "")


RULE = Rule(
    name="quantize_linear_qdq",
    requires="a product with a constant matrix",
    ensures="every product with a quantised matrix reads its codes through DequantizeLinear",
    apply=apply,
    expected=lambda context: 7 * context.geometry.layers + 1 if context.quantized is not None else 0,
)
