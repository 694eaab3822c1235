"""RotaryEmbedding → Gather, Split, Mul, Concat, for runtimes that know operators up to opset 22."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.lowering import Lowering
from edgekit.rewrite.rule import Context, Outcome, Rule, forbid_op


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome, make = Outcome(), Lowering(graph)
    rows: dict[tuple[str, str], gs.Variable] = {}

    def row(table: gs.Tensor, positions: gs.Tensor) -> gs.Variable:
        """The table's rows of these positions, [B, S, 1, D/2]; the layers share them."""
        key = (table.name, positions.name)
        if key not in rows:
            picked = make.node("Gather", [table, positions], table.name + ".rows", axis=0)
            rows[key] = make.node("Unsqueeze", [picked, make.ints(2)], table.name + ".row")
        return rows[key]

    for node in [node for node in graph.nodes if node.op == "RotaryEmbedding"]:
        if len(node.inputs) != 4 or node.attrs.get("interleaved", 0) or not node.attrs.get("num_heads"):
            outcome.refuse(node, "it is interleaved, or lacks positions or the number of heads")
            continue
        x, cos_table, sin_table, positions = node.inputs
        stem, heads = node.name or node.outputs[0].name, int(node.attrs["num_heads"])
        cos, sin = row(cos_table, positions), row(sin_table, positions)
        split = make.node("Reshape", [x, make.ints(0, 0, heads, -1)], stem + ".heads")
        half = context.geometry.head_dim // 2
        low = make.node("Slice", [split, make.ints(0), make.ints(half), make.ints(3)], stem + ".low")
        high = make.node("Slice", [split, make.ints(half), make.ints(2 * half), make.ints(3)], stem + ".high")
        low_turned = make.node("Mul", [high, sin], stem + ".high_sin")
        low_turned = make.node(
            "Sub", [make.node("Mul", [low, cos], stem + ".low_cos"), low_turned], stem + ".low_turned"
        )
        high_turned = make.node("Mul", [low, sin], stem + ".low_sin")
        high_turned = make.node(
            "Add", [make.node("Mul", [high, cos], stem + ".high_cos"), high_turned], stem + ".high_turned"
        )
        turned = make.node("Concat", [low_turned, high_turned], stem + ".turned", axis=3)
        make.replaces(node, make.node("Reshape", [turned, make.ints(0, 0, -1)], stem + ".rows"))
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="lower_rotary_embedding",
    requires="RotaryEmbedding of rows [B, S, heads * D], half-split, with positions",
    ensures="no RotaryEmbedding is left",
    apply=apply,
    check=forbid_op("RotaryEmbedding"),
)
