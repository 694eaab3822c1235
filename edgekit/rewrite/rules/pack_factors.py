"""The linear maps that read one input in a layer with factorised attention → one product and a Split.

A factorised layer has three to six narrow projections where others have one packed one; each alone would start the
threads and quantise the same input again.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import onnx_graphsurgeon as gs

from edgekit.rewrite.match import constant, linear_weight, scope_of, variable
from edgekit.rewrite.rule import Context, Outcome, Rule
from edgekit.rewrite.weights import Weight, concatenated

#: Operators whose presence makes a model one with factorised attention.
_OPERATORS = ("TPAAttention", "TPAAppend")
_SCOPE = "self_attn"


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    if not any(context.geometry.operators.get(name) for name in _OPERATORS):
        return outcome
    for (_, scope, kind), nodes in _groups(graph, context).items():
        if len(nodes) < 2:
            outcome.refuse(nodes[0], f"no other projection of the same input is stored alike ({kind})")
            continue
        # The name says which weights lie one after another in the packed one.
        _pack(graph, nodes, scope + "." + "+".join(_module(node) for node in nodes))
        outcome.fired += 1
    return outcome


def _groups(graph: gs.Graph, context: Context) -> dict[tuple[int, str, Hashable], list[gs.Node]]:
    """Projections by input, attention module and storage, in graph order."""
    groups: dict[tuple[int, str, Hashable], list[gs.Node]] = {}
    for node in graph.nodes:
        weight = linear_weight(node)
        scope = scope_of(scope_of(node.inputs[1].name)) if weight is not None else ""
        if weight is None or not scope.endswith(_SCOPE) or node.inputs[1].name.endswith(".o_proj.weight_t"):
            continue
        groups.setdefault((id(node.inputs[0]), scope, _storage(weight, context)), []).append(node)
    return groups


def _storage(weight: Weight, context: Context) -> Hashable:
    """What must be equal for two weights to be stacked: the form of their codes, or that they have none."""
    matrix = context.quantized.matrix(weight.sources) if context.quantized is not None and weight.sources else None
    if matrix is None:
        return "unquantised"
    return matrix.bits, matrix.codes.shape[2], "offsets" if matrix.offsets is not None else "no offsets"


def _module(node: gs.Node) -> str:
    """The last part of the name of the module whose weight a product reads: "k_b_proj"."""
    return scope_of(node.inputs[1].name).rpartition(".")[2]


def _pack(graph: gs.Graph, nodes: list[gs.Node], scope: str) -> None:
    weights = [linear_weight(node) for node in nodes]
    source, packed = nodes[0].inputs[0], variable(scope + ".out")
    outputs = [node.outputs[0] for node in nodes]
    sizes = constant(scope + ".sizes", [weight.shape[1] for weight in weights if weight is not None], np.int64)
    joined = gs.Constant(scope + ".weight_t", concatenated([w for w in weights if w is not None], axis=1))
    for node in nodes:
        node.outputs.clear()
    graph.nodes.append(gs.Node("MatMul", scope, {}, [source, joined], [packed]))
    graph.nodes.append(gs.Node("Split", scope + ".split", {"axis": -1}, [packed, sizes], outputs))


RULE = Rule(
    name="pack_factors",
    requires="projections of one input in a layer with factorised attention",
    ensures="one matrix product makes all that are stored alike",
    apply=apply,
)
