"""Three projections of one input that feed a GroupQueryAttention → one projection with the weights side by side."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.match import linear_weight, produced_by, scope_of, variable, weight_of
from edgekit.rewrite.quantized import stackable
from edgekit.rewrite.rule import Context, Outcome, Rule
from edgekit.rewrite.weights import Weight, concatenated


def _projection(tensor: gs.Tensor) -> tuple[gs.Node, Weight, Weight | None] | str:
    """(MatMul, weight, bias) behind a projected tensor, or why it is none."""
    bias = None
    add = produced_by(tensor, "Add")
    if add is not None:
        bias = weight_of(add.inputs[1])
        if bias is None or len(tensor.outputs) != 1:
            return "it adds something that is not a constant bias"
        tensor = add.inputs[0]
    matmul = produced_by(tensor, "MatMul")
    weight = linear_weight(matmul) if matmul is not None else None
    if matmul is None or weight is None:
        return "a query, key or value is not a plain projection (it is normalised per head)"
    if len(tensor.outputs) != 1:
        return "a projection has another reader"
    return matmul, weight, bias


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    for node in list(graph.nodes):
        if node.op != "GroupQueryAttention" or node.inputs[1].is_empty():
            continue
        parts = []
        for tensor in node.inputs[:3]:
            part = _projection(tensor)
            if isinstance(part, str):
                outcome.refuse(node, part)
                break
            parts.append(part)
        if len(parts) != 3:
            continue
        source = parts[0][0].inputs[0]
        biases = [bias for _, _, bias in parts if bias is not None]
        if any(matmul.inputs[0] is not source for matmul, _, _ in parts) or len(biases) not in (0, 3):
            outcome.refuse(node, "the projections differ in their input or in having a bias")
            continue
        if not stackable([weight for _, weight, _ in parts], context):
            outcome.refuse(node, "the projections are quantised with other bits or blocks")
            continue
        scope = scope_of(scope_of(parts[0][0].inputs[1].name)) + ".qkv_proj"
        packed = variable(scope + ".out")
        weight = gs.Constant(scope + ".weight_t", concatenated([w for _, w, _ in parts], axis=1))
        for tensor in node.inputs[:3]:
            tensor.inputs[0].outputs.clear()
        graph.nodes.append(gs.Node("MatMul", scope, {}, [source, weight], [packed]))
        if biases:
            biased = variable(scope + ".biased")
            bias = gs.Constant(scope + ".bias", concatenated(biases))
            graph.nodes.append(gs.Node("Add", scope + ".add", {}, [packed, bias], [biased]))
            packed = biased
        node.inputs = [packed, gs.Variable.empty(), gs.Variable.empty(), *node.inputs[3:]]
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="pack_qkv",
    requires="query, key and value projected from one input, in each layer",
    ensures="one matrix product makes all three",
    apply=apply,
    expected=lambda context: context.geometry.causal_attentions,
)
