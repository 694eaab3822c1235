"""MatMul(x, W) with a quantised W → com.microsoft::MatMulNBits, which quantises x to int8 block by block inside the
kernel where the processor has the instructions (accuracy level 4)."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.block_sums import BlockSums
from edgekit.rewrite.match import MICROSOFT, linear_weight, scope_of
from edgekit.rewrite.quantized import QuantizedParts
from edgekit.rewrite.rule import Context, Outcome, Rule

#: Activations may be quantised to int8 inside the kernel.
ACCURACY_INT8 = 4


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    if context.quantized is None:
        return outcome
    sums = BlockSums(graph)
    for node in list(graph.nodes):
        weight = linear_weight(node)
        if weight is None:
            continue
        parts = QuantizedParts.of(weight, context)
        if parts is None:
            outcome.refuse(node, f"{', '.join(weight.sources) or 'its matrix'} is not quantised")
            continue
        scope = scope_of(node.inputs[1].name)
        if scope == "model.embed_tokens":
            scope = "lm_head"
        node.op, node.domain, node.name = "MatMulNBits", MICROSOFT, scope
        node.attrs = {
            "K": parts.inputs,
            "N": parts.outputs,
            "bits": parts.bits,
            "block_size": parts.block,
            "accuracy_level": ACCURACY_INT8,
        }
        codes, scales = parts.codes(), parts.scales()
        source = sums.appended(node.inputs[0], parts) if parts.block_sums else node.inputs[0]
        inputs = [source, gs.Constant(scope + ".codes", codes), gs.Constant(scope + ".scales", scales)]
        if not parts.symmetric:
            inputs.append(gs.Constant(scope + ".zero_points", parts.zero_points()))
        node.inputs = inputs
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="quantize_linear",
    requires="a product with a constant matrix",
    ensures="every product with a quantised matrix reads its codes",
    apply=apply,
    expected=lambda context: 4 * context.geometry.layers + 1 if context.quantized is not None else 0,
)
