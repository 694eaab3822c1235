"""Attention → MatMul, Where, Softmax, MatMul, for runtimes that know operators up to opset 22.

Heads that share keys and values are an axis of their own, so that nothing is repeated in memory.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.lowering import Lowering
from edgekit.rewrite.rule import Context, Outcome, Rule, forbid_op

#: In place of minus infinity, in every element type; no row is masked as a whole.
_LOWEST = -65504.0


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome, make = Outcome(), Lowering(graph)
    groups = context.geometry.kv_heads
    for node in [node for node in graph.nodes if node.op == "Attention"]:
        if len(node.inputs) != 4 or len(node.outputs) != 1 or "scale" not in node.attrs:
            outcome.refuse(node, "it has a cache of its own, or lacks a mask or a scale")
            continue
        query, key, value, visible = node.inputs
        stem = node.name or node.outputs[0].name
        scaled = make.node("Mul", [query, make.scalar(float(node.attrs["scale"]), context.dtype)], stem + ".scaled")
        shape = make.ints(0, groups, context.geometry.heads // groups, -1, context.geometry.head_dim)
        grouped = make.node("Reshape", [scaled, shape], stem + ".grouped")
        key_rows = make.node("Unsqueeze", [key, make.ints(2)], stem + ".key_rows")
        key_columns = make.node("Transpose", [key_rows], stem + ".key_columns", perm=[0, 1, 2, 4, 3])
        scores = make.node("MatMul", [grouped, key_columns], stem + ".scores")
        softcap = float(node.attrs.get("softcap", 0.0))
        if softcap:
            cap = make.scalar(softcap, context.dtype)
            scores = make.node("Tanh", [make.node("Div", [scores, cap], stem + ".relative")], stem + ".bounded")
            scores = make.node("Mul", [scores, cap], stem + ".capped")
        seen = make.node("Unsqueeze", [visible, make.ints(1)], stem + ".seen")
        masked = make.node("Where", [seen, scores, make.scalar(_LOWEST, context.dtype)], stem + ".masked")
        weights = make.node("Softmax", [masked], stem + ".weights", axis=-1)
        value_rows = make.node("Unsqueeze", [value, make.ints(2)], stem + ".value_rows")
        mixed = make.node("MatMul", [weights, value_rows], stem + ".mixed")
        heads = make.ints(0, context.geometry.heads, -1, context.geometry.head_dim)
        make.replaces(node, make.node("Reshape", [mixed, heads], stem + ".attended_heads"))
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="lower_attention_products",
    requires="Attention over [B, heads, tokens, D] with a mask and a scale",
    ensures="no Attention is left",
    apply=apply,
    expected=lambda context: context.geometry.causal_attentions,
    check=forbid_op("Attention"),
)
