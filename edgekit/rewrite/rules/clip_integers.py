"""Clip of integers → Max and Min: TensorRT's Clip takes floating point only."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from edgekit.rewrite.lowering import Lowering
from edgekit.rewrite.rule import Context, Outcome, Rule


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome, make = Outcome(), Lowering(graph)
    for node in [node for node in graph.nodes if node.op == "Clip"]:
        bounds = [*node.inputs[1:], None, None][:2]
        given = [bound for bound in bounds if bound is not None and not bound.is_empty()]
        if not given or not any(tensor.dtype == np.int64 for tensor in (node.inputs[0], *given)):
            continue
        result = node.inputs[0]
        for op, bound in zip(("Max", "Min"), bounds, strict=True):
            if bound is not None and not bound.is_empty():
                result = make.node(op, [result, bound], f"{node.name}.{op.lower()}")
        make.replaces(node, result)
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="clip_integers",
    requires="a Clip of int64",
    ensures="integers are clipped by Max and Min",
    apply=apply,
)
