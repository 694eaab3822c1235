"""CastLike → Cast to the type that its second input is known to have: TensorRT 10.3 has no CastLike."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgekit.rewrite.lowering import Lowering
from edgekit.rewrite.rule import Context, Outcome, Rule, forbid_op


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome, make = Outcome(), Lowering(graph)
    for node in [node for node in graph.nodes if node.op == "CastLike"]:
        value, like = node.inputs
        if like.dtype is None:
            outcome.refuse(node, f"the type of {like.name} is not known")
            continue
        to = like.dtype if isinstance(like.dtype, int) else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(like.dtype))
        make.replaces(node, make.node("Cast", [value], node.name + ".cast", to=int(to)))
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="lower_cast_like",
    requires="CastLike after a tensor of known type",
    ensures="no CastLike is left",
    apply=apply,
    check=forbid_op("CastLike"),
)
