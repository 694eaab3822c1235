"""Half-precision logits → float32 at the output: sampling and perplexity need the range, the contract promises it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgekit.contract import LOGITS
from edgekit.rewrite.match import Names, variable
from edgekit.rewrite.rule import Context, Outcome, Rule


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    logits = next(tensor for tensor in graph.outputs if tensor.name == LOGITS)
    if logits.dtype == np.float32:
        return outcome
    node = logits.inputs[0]
    half = variable(Names(graph).fresh("logits.half"), logits.dtype)
    node.outputs = [half if tensor is logits else tensor for tensor in node.outputs]
    logits.dtype = np.dtype(np.float32)
    cast = gs.Node("Cast", "logits.cast", {"to": onnx.TensorProto.FLOAT}, [half], [logits])
    graph.nodes.append(cast)
    outcome.fired += 1
    return outcome


def check(graph: gs.Graph) -> None:
    logits = next(tensor for tensor in graph.outputs if tensor.name == LOGITS)
    assert logits.dtype == np.float32, f"logits are {logits.dtype}"


RULE = Rule(
    name="logits_to_float32",
    requires="logits of another element type",
    ensures="logits are float32",
    apply=apply,
    check=check,
)
