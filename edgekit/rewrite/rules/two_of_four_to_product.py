"""edgekit::TTSparseLinear of two of every four inputs alone → a product with the matrix, zeros included.

TensorRT finds the pattern in the weights and multiplies by sparse tensor cores, where the build allows it
(BuilderFlag.SPARSE_WEIGHTS, which the name of the node asks for).
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.contract import TWO_OF_FOUR
from edgekit.ops.specs.tt_sparse_linear import GROUPS
from edgekit.rewrite.rule import Context, Outcome, Rule
from edgekit.rewrite.tt_sparse import layers


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    for layer in layers(graph):
        if layer.attributes["residual"] != GROUPS or layer.attributes["group_kept"] != 2:
            outcome.refuse(layer.node, "it does not keep two of every four inputs: the operator multiplies by it")
        elif layer.attributes["base_bits"]:
            outcome.refuse(layer.node, "it has a base beside its 2:4 residual: the operator multiplies by both")
        elif layer.attributes["low_rank"]:
            outcome.refuse(layer.node, "it has a pair beside its 2:4 residual: the operator multiplies by both")
        else:
            matrix = gs.Constant(f"{layer.scope}.weight_2_4_t", layer.residual(context.dtype).transposed())
            layer.replace(layer.product(layer.inputs["x"], matrix, layer.scope + TWO_OF_FOUR))
            outcome.fired += 1
    return outcome


RULE = Rule(
    name="two_of_four_to_product",
    requires="an edgekit::TTSparseLinear",
    ensures="one that is a 2:4 matrix alone is a product; each other one is told",
    apply=apply,
)
