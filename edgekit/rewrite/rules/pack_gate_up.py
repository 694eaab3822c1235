"""The gate and up projections of one input → one projection and a Split: the input is quantised and read once."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.match import linear_weight, scope_of, variable
from edgekit.rewrite.quantized import stackable
from edgekit.rewrite.rule import Context, Outcome, Rule
from edgekit.rewrite.weights import concatenated


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    for gate in list(graph.nodes):
        weight = linear_weight(gate)
        if weight is None or not gate.inputs[1].name.endswith(".gate_proj.weight_t"):
            continue
        wanted = gate.inputs[1].name.replace(".gate_proj.", ".up_proj.")
        up = next((n for n in gate.inputs[0].outputs if n.op == "MatMul" and n.inputs[1].name == wanted), None)
        up_weight = linear_weight(up) if up is not None else None
        if up is None or up_weight is None or up_weight.shape != weight.shape:
            outcome.refuse(gate, "no up projection of the same shape reads the same input")
            continue
        if not stackable([weight, up_weight], context):
            outcome.refuse(gate, "gate and up are quantised with other bits or blocks")
            continue
        scope = scope_of(scope_of(gate.inputs[1].name)) + ".gate_up_proj"
        source, both = gate.inputs[0], variable(scope + ".out")
        outputs = [gate.outputs[0], up.outputs[0]]
        gate.outputs.clear()
        up.outputs.clear()
        packed = gs.Constant(scope + ".weight_t", concatenated([weight, up_weight], axis=1))
        graph.nodes.append(gs.Node("MatMul", scope, {}, [source, packed], [both]))
        graph.nodes.append(gs.Node("Split", scope + ".split", {"axis": -1, "num_outputs": 2}, [both], outputs))
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="pack_gate_up",
    requires="gate and up projected from one input, in each layer",
    ensures="one matrix product makes both",
    apply=apply,
    expected=lambda context: context.geometry.gated,
)
