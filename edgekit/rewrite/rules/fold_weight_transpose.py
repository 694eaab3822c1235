"""MatMul(x, Transpose(W)) with a constant W [out, in] → MatMul(x, Wᵗ): the transposition happens once, when writing.

A matrix with another reader (an embedding tied to the head) stays as it is, so that it is stored once."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.match import Names, weight_of
from edgekit.rewrite.rule import Context, Outcome, Rule


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome, names = Outcome(), Names(graph)
    for node in list(graph.nodes):
        if node.op != "Transpose":
            continue
        weight = weight_of(node.inputs[0])
        if weight is None:
            continue
        if node.attrs.get("perm") != [1, 0]:
            outcome.refuse(node, f"it permutes {node.attrs.get('perm')}, not [1, 0]")
            continue
        if len(node.inputs[0].outputs) > 1:
            outcome.refuse(node, "the matrix has another reader, and would be stored twice")
            continue
        folded = gs.Constant(names.fresh(node.inputs[0].name + "_t"), weight.transposed())
        transposed = node.outputs[0]
        for consumer in list(transposed.outputs):
            consumer.inputs = [folded if tensor is transposed else tensor for tensor in consumer.inputs]
        node.outputs.clear()
        outcome.fired += 1
    return outcome


def check(graph: gs.Graph) -> None:
    transposes = [node for node in graph.nodes if node.op == "Transpose" and weight_of(node.inputs[0]) is not None]
    left = [n.name for n in transposes if n.attrs.get("perm") == [1, 0] and len(n.inputs[0].outputs) == 1]
    assert not left, f"{len(left)} constant matrices are still transposed at run time, the first by {left[0]}"


RULE = Rule(
    name="fold_weight_transpose",
    requires="a Transpose [1, 0] of a constant matrix",
    ensures="no constant matrix is transposed at run time, but for one with another reader",
    apply=apply,
    expected=lambda context: context.geometry.products,
    check=check,
)
