"""RMSNormalization(a + b) → com.microsoft::SkipSimplifiedLayerNormalization, which gives the sum and its norm in one
pass over memory. The sum keeps its name, so the residual stream can still be tapped."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.match import MICROSOFT, produced_by
from edgekit.rewrite.rule import Context, Outcome, Rule


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    for node in list(graph.nodes):
        if node.op != "RMSNormalization":
            continue
        total, scale = node.inputs
        add = produced_by(total, "Add")
        if add is None:
            continue
        if any(isinstance(tensor, gs.Constant) for tensor in add.inputs):
            outcome.refuse(node, "it normalises a sum with a constant, not a residual")
            continue
        normalised = node.outputs[0]
        addends = list(add.inputs)
        epsilon = float(node.attrs["epsilon"])
        add.outputs.clear()
        node.outputs.clear()
        unused = [gs.Variable.empty(), gs.Variable.empty()]
        graph.nodes.append(
            gs.Node(
                "SkipSimplifiedLayerNormalization",
                name=node.name,
                attrs={"epsilon": epsilon},
                inputs=[*addends, scale],
                outputs=[normalised, *unused, total],
                domain=MICROSOFT,
            )
        )
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="fuse_skip_norm",
    requires="an RMSNormalization of a residual sum, two in each layer",
    ensures="each residual addition is fused with the norm that reads it",
    apply=apply,
    expected=lambda context: 2 * context.geometry.layers,
)
