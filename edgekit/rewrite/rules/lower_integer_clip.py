"""Clip over integers → Max and Min: TensorRT clips floating point only."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from edgekit.rewrite.lowering import Lowering
from edgekit.rewrite.rule import Context, Outcome, Rule


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome, make = Outcome(), Lowering(graph)
    for node in [node for node in graph.nodes if node.op == "Clip"]:
        kinds = {tensor.dtype for tensor in (*node.inputs, *node.outputs) if tensor.dtype is not None and tensor.name}
        if not kinds:
            outcome.refuse(node, "the type of what it clips is not known")
            continue
        if not all(np.issubdtype(kind, np.integer) for kind in kinds if not isinstance(kind, int)):
            continue  # floating point, which Clip takes
        result, stem = node.inputs[0], node.name or node.outputs[0].name
        for op, bound in zip(("Max", "Min"), node.inputs[1:], strict=False):
            if bound.name:  # an omitted bound has none
                result = make.node(op, [result, bound], f"{stem}.{op.lower()}")
        if result is node.inputs[0]:
            outcome.refuse(node, "it has no bounds")
            continue
        make.replaces(node, result)
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="lower_integer_clip",
    requires="Clip over integers",
    ensures="integers are bounded by Max and Min",
    apply=apply,
)
