"""edgekit::TTSparseLinear without a residual → two products, with the pair's codes behind DequantizeLinear.

A contracted train of low rank is two thin matrices, which a runtime multiplies by as well as any kernel of ours. Codes
stay codes where each scale is one row's; others are stored as numbers.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.rewrite.match import variable
from edgekit.rewrite.rule import Context, Outcome, Rule
from edgekit.rewrite.tt_sparse import Layer, layers


def apply(graph: gs.Graph, context: Context, *, codes: bool = True) -> Outcome:
    outcome = Outcome()
    for layer in layers(graph):
        if layer.attributes["base_bits"]:
            outcome.refuse(layer.node, f"it has a base of {layer.attributes['base_bits']} bits")
            continue
        if layer.attributes["residual"]:
            outcome.refuse(layer.node, f"it has a residual of {layer.attributes['entries']} entries")
            continue
        if codes and layer.whole_blocks:
            a, b = (_dequantized(layer, name, context.dtype) for name in "ab")
        else:
            a = gs.Constant(f"{layer.scope}.a_t", layer.factor("a", context.dtype).transposed())
            b = gs.Constant(f"{layer.scope}.b_numbers", layer.factor("b", context.dtype))
        inner = layer.product(layer.inputs["x"], a, f"{layer.scope}.inner")
        layer.replace(layer.product(inner, b, f"{layer.scope}.outer"))
        outcome.fired += 1
    return outcome


def _dequantized(layer: Layer, name: str, dtype: str) -> gs.Variable:
    """a transposed [K, R], or b [R, O]; blocks are along K and O."""
    stem, codes, scales = f"{layer.scope}.{name}", layer.codes(name), layer.scales(name, dtype)
    axis = 1
    if name == "a":
        codes, scales, axis = codes.transposed(), scales.transposed(), 0
    inputs = [gs.Constant(f"{stem}_signed", codes), gs.Constant(f"{stem}_block_scales", scales)]
    attributes = {"axis": axis, "block_size": layer.attributes["factor_block"]}
    made = variable(f"{stem}_dequantized")
    layer.graph.nodes.append(gs.Node("DequantizeLinear", f"{stem}_dequantize", attributes, inputs, [made]))
    return made


RULE = Rule(
    name="tt_pair_to_products",
    requires="an edgekit::TTSparseLinear",
    ensures="one without a residual and a base is two products; each that has one is told",
    apply=apply,
    expected=lambda context: context.geometry.operators.get("TTSparseLinear", 0),
)
