"""Gather(E, ids) with a quantised E → com.microsoft::GatherBlockQuantized: only the rows that are looked up are
dequantised, and a tied head reads the same bytes."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.match import MICROSOFT, scope_of, weight_of
from edgekit.rewrite.quantized import QuantizedParts
from edgekit.rewrite.rule import Context, Outcome, Rule


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    if context.quantized is None:
        return outcome
    for node in list(graph.nodes):
        weight = weight_of(node.inputs[0]) if node.op == "Gather" else None
        if weight is None or len(weight.shape) != 2:
            continue
        parts = QuantizedParts.of(weight, context)
        if parts is None:
            outcome.refuse(node, f"{', '.join(weight.sources) or 'its table'} is not quantised")
            continue
        if parts.block_sums:
            outcome.refuse(node, "its blocks have offsets, which a lookup cannot add")
            continue
        if parts.inputs % parts.block:
            outcome.refuse(node, f"rows of {parts.inputs} are not whole blocks of {parts.block}")
            continue
        scope = scope_of(node.inputs[0].name)
        inputs = [
            gs.Constant(scope + ".codes", parts.codes(flat=True)),
            node.inputs[1],
            gs.Constant(scope + ".scales", parts.scales()),
            # Written out even where all are the middle code: without them the operator's default depends on the type.
            gs.Constant(scope + ".zero_points", parts.zero_points()),
        ]
        node.op, node.domain, node.name = "GatherBlockQuantized", MICROSOFT, scope
        node.attrs = {"gather_axis": 0, "quantize_axis": 1, "block_size": parts.block, "bits": parts.bits}
        node.inputs = inputs
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="quantize_embedding",
    requires="a Gather from a constant table",
    ensures="the embedding is looked up in its quantised form",
    apply=apply,
    expected=lambda context: 1 if context.quantized is not None else 0,
)
