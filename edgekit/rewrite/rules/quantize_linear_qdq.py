"""MatMul(x, W) with a quantised W → MatMul(x, DequantizeLinear(codes, scales)): standard ONNX, which TensorRT and ONNX
Runtime fuse into their own low-bit products.

Scales are per block of inputs, or one per output. In the latter case an embedding that its head is tied to reads the
same codes: DequantizeLinear of the table [V, hidden] feeds the lookup and, transposed, the product.
"""

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
        table = _table(node)
        if parts.per_output and table is not None:
            _share_table(graph, table, parts)
        else:
            node.inputs = [node.inputs[0], _dequantized(graph, scope_of(name), parts)]
        outcome.fired += 1
    return outcome


def _dequantized(graph: gs.Graph, scope: str, parts: QuantizedParts) -> gs.Variable:
    """The matrix [in, out], from codes that lie so."""
    if parts.per_output:
        scales, attributes = parts.output_scales(), {"axis": 1}
    else:
        scales, attributes = parts.transposed_scales(), {"axis": 0, "block_size": parts.block}
    return _node(graph, scope, parts.signed_codes(), scales, attributes)


def _share_table(graph: gs.Graph, table: gs.Constant, parts: QuantizedParts) -> None:
    """Let every reader of the table [V, hidden] read it from its codes."""
    readers = list(table.outputs)
    scope = scope_of(table.name)
    dequantized = _node(graph, scope, parts.signed_rows(), parts.output_scales(), {"axis": 0})
    for reader in readers:
        reader.inputs = [dequantized if tensor is table else tensor for tensor in reader.inputs]


def _node(graph: gs.Graph, scope: str, codes: Weight, scales: Weight, attributes: dict[str, int]) -> gs.Variable:
    dequantized = variable(scope + ".dequantized")
    inputs = [gs.Constant(scope + ".codes", codes), gs.Constant(scope + ".scales", scales)]
    graph.nodes.append(gs.Node("DequantizeLinear", scope + ".dequantize", attributes, inputs, [dequantized]))
    return dequantized


def _matrix(node: gs.Node) -> tuple[Weight | None, str]:
    """The matrix [in, out] that a MatMul multiplies by, directly or transposed at run time, and its name."""
    weight = linear_weight(node)
    if weight is not None:
        return weight, str(node.inputs[1].name)
    table = _table(node)
    own = weight_of(table) if table is not None else None
    return (own.transposed(), "lm_head.weight") if own is not None else (None, "")


def _table(node: gs.Node) -> gs.Constant | None:
    """The constant that a MatMul multiplies by, transposed at run time: an embedding that a head is tied to."""
    transpose = produced_by(node.inputs[1], "Transpose") if node.op == "MatMul" else None
    return transpose.inputs[0] if transpose is not None and weight_of(transpose.inputs[0]) is not None else None


RULE = Rule(
    name="quantize_linear_qdq",
    requires="a product with a constant matrix",
    ensures="every product with a quantised matrix reads its codes through DequantizeLinear",
    apply=apply,
    expected=lambda context: context.geometry.products if context.quantized is not None else 0,
)
