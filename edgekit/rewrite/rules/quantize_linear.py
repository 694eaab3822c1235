"""MatMul(x, W) with a quantised W → com.microsoft::MatMulNBits, which quantises x to int8 block by block inside the
kernel where the processor has the instructions (accuracy level 4)."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.block_sums import BlockSums
from edgekit.rewrite.match import MICROSOFT, linear_weight, scope_of
from edgekit.rewrite.quantized import QuantizedParts
from edgekit.rewrite.rule import Context, Outcome, Rule

#: Activations may be quantised to int8 inside the kernel, or stay float32.
ACCURACY_INT8, ACCURACY_FLOAT32 = 4, 1

#: Projections to fewer numbers than the heads have: rounding their input costs more than rounding anything else's.
_REDUCED = {"k_proj", "v_proj"}


def _accuracy(scope: str, context: Context) -> int:
    """The accuracy_level of a product, by the module or modules it stands for."""
    parts = scope.rpartition(".")[2].split("+")
    converted = any(context.geometry.operators.get(name) for name in ("TPAAttention", "TPAAppend"))
    return ACCURACY_FLOAT32 if converted and _REDUCED & set(parts) else ACCURACY_INT8


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
            "accuracy_level": _accuracy(scope, context),
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
    expected=lambda context: context.geometry.packed_products if context.quantized is not None else 0,
)
