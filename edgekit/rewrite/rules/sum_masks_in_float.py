"""CumSum over integers → over float32: TensorRT 10.3 sums floating point only. Token counts are exact up to 2^24."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgekit.contract import ATTENTION_MASK
from edgekit.rewrite.lowering import Lowering
from edgekit.rewrite.rule import Context, Outcome, Rule


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome, make = Outcome(), Lowering(graph)
    for node in [node for node in graph.nodes if node.op == "CumSum"]:
        mask, axis = node.inputs
        if mask.name != ATTENTION_MASK and mask.dtype != np.int64:
            outcome.refuse(node, "it does not sum the attention mask")
            continue
        wide = make.node("Cast", [mask], node.name + ".float", to=onnx.TensorProto.FLOAT)
        total = make.node("CumSum", [wide, axis], node.name + ".sum", **node.attrs)
        make.replaces(node, make.node("Cast", [total], node.name + ".int", to=onnx.TensorProto.INT64))
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="sum_masks_in_float",
    requires="a running sum over an int64 mask",
    ensures="running sums are float32",
    apply=apply,
)
