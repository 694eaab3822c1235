"""RMSNormalization → SimplifiedLayerNormalization, the same formula with kernels in every ONNX Runtime provider."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.rule import Context, Outcome, Rule, forbid_op


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    for node in graph.nodes:
        if node.op == "RMSNormalization":
            node.op = "SimplifiedLayerNormalization"
            outcome.fired += 1
    return outcome


RULE = Rule(
    name="fuse_norm",
    requires="an RMSNormalization that does not follow a residual addition",
    ensures="no RMSNormalization is left",
    apply=apply,
    expected=lambda context: 1,
    check=forbid_op("RMSNormalization"),
)
