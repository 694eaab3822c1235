"""MatMul(x, Transpose(E)) with E the embedding → com.microsoft::FusedMatMul.

It reads E [V, hidden] as it is stored.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.match import MICROSOFT, produced_by, weight_of
from edgekit.rewrite.rule import Context, Outcome, Rule


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    for node in list(graph.nodes):
        transpose = produced_by(node.inputs[1], "Transpose") if node.op == "MatMul" else None
        if transpose is None or weight_of(transpose.inputs[0]) is None:
            continue
        if transpose.attrs.get("perm") != [1, 0]:
            outcome.refuse(node, f"its matrix is permuted by {transpose.attrs.get('perm')}, not [1, 0]")
            continue
        node.inputs = [node.inputs[0], transpose.inputs[0]]
        node.op, node.domain = "FusedMatMul", MICROSOFT
        node.attrs = {"transA": 0, "transB": 1, "alpha": 1.0}
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="fuse_tied_head",
    requires="a head that multiplies by the transposed embedding",
    ensures="the embedding serves both without a second copy",
    apply=apply,
    expected=lambda context: int(context.geometry.tied),
)
