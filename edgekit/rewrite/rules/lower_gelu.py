"""Gelu → Erf or Tanh, for runtimes whose operators are those of opset 19.

Gaussian Error Linear Units (arXiv 1606.08415): x Φ(x), or its approximation by tanh (section 2).
"""

from __future__ import annotations

import math

import onnx_graphsurgeon as gs

from edgekit.rewrite.lowering import Lowering
from edgekit.rewrite.rule import Context, Outcome, Rule, forbid_op


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome, make = Outcome(), Lowering(graph)
    for node in [node for node in graph.nodes if node.op == "Gelu"]:
        [x] = node.inputs
        stem = node.name or node.outputs[0].name
        if node.attrs.get("approximate", "none") == "tanh":
            square = make.node("Mul", [x, x], stem + ".square")
            bent = make.node("Mul", [square, make.scalar(0.044715, context.dtype)], stem + ".bent")
            bent = make.node("Add", [bent, make.scalar(1.0, context.dtype)], stem + ".slope")
            inner = make.node("Mul", [x, bent], stem + ".inner")
            inner = make.node("Mul", [inner, make.scalar(math.sqrt(2 / math.pi), context.dtype)], stem + ".scaled")
            curve = make.node("Tanh", [inner], stem + ".curve")
        else:
            curve = make.node("Div", [x, make.scalar(math.sqrt(2), context.dtype)], stem + ".scaled")
            curve = make.node("Erf", [curve], stem + ".curve")
        gate = make.node("Add", [curve, make.scalar(1.0, context.dtype)], stem + ".gate")
        half = make.node("Mul", [x, make.scalar(0.5, context.dtype)], stem + ".half")
        make.replaces(node, make.node("Mul", [half, gate], stem + ".gated"))
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="lower_gelu",
    requires="Gelu",
    ensures="no Gelu is left",
    apply=apply,
    check=forbid_op("Gelu"),
)
