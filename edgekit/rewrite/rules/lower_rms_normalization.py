"""RMSNormalization → Mul, ReduceMean, Sqrt, Div, for runtimes that know operators up to opset 22.

The mean of squares is float32 whatever the graph's type, as the operator's stash_type says.
"""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from edgekit.rewrite.lowering import Lowering
from edgekit.rewrite.rule import Context, Outcome, Rule, forbid_op

_ONNX_TYPES = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome, make = Outcome(), Lowering(graph)
    for node in [node for node in graph.nodes if node.op == "RMSNormalization"]:
        if node.attrs.get("axis", -1) != -1 or node.attrs.get("stash_type", 1) != 1:
            outcome.refuse(node, "it normalises more than the last axis, or not in float32")
            continue
        x, scale = node.inputs
        stem, half = node.name or node.outputs[0].name, context.dtype != "float32"
        wide = make.node("Cast", [x], stem + ".wide", to=onnx.TensorProto.FLOAT) if half else x
        square = make.node("Mul", [wide, wide], stem + ".square")
        mean = make.node("ReduceMean", [square, make.ints(-1)], stem + ".mean", keepdims=1)
        epsilon = make.scalar(float(node.attrs.get("epsilon", 1e-5)), "float32")
        root = make.node("Sqrt", [make.node("Add", [mean, epsilon], stem + ".shifted")], stem + ".root")
        normal = make.node("Div", [wide, root], stem + ".normal")
        if half:
            normal = make.node("Cast", [normal], stem + ".narrow", to=_ONNX_TYPES[context.dtype])
        make.replaces(node, make.node("Mul", [normal, scale], stem + ".scaled"))
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="lower_rms_normalization",
    requires="RMSNormalization over the last axis",
    ensures="no RMSNormalization is left",
    apply=apply,
    check=forbid_op("RMSNormalization"),
)
