"""Layers of a base alone that read one input → one edgekit::TTSparseLinear with their outputs one after another.

The input is rounded and read once, and a call is saved for each. Query, key and value that a GroupQueryAttention takes
are what it takes packed; others are split.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from edgekit.ops.specs.tt_sparse_linear import TILE
from edgekit.rewrite.match import constant, scope_of, variable, weight_of
from edgekit.rewrite.rule import Context, Outcome, Rule
from edgekit.rewrite.tt_sparse import Layer, layers
from edgekit.rewrite.weights import concatenated

#: What rows of several projections are called together; others join their names by "+".
NAMES = {("q_proj", "k_proj", "v_proj"): "qkv_proj", ("gate_proj", "up_proj"): "gate_up_proj"}
_OPERANDS = ("base", "base_scales", "base_zeros")


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    groups: dict[tuple[Any, ...], list[Layer]] = defaultdict(list)
    for layer in layers(graph):
        of = layer.attributes
        if of["base_bits"] and not (of["low_rank"] or of["residual"] or of["bias"]):
            groups[id(layer.inputs["x"]), of["base_bits"], of["base_block"], of["zero_points"]].append(layer)
    for group in groups.values():
        if len(group) == 1:
            continue
        reason = next(filter(None, map(_ends_inside, group[:-1])), None)
        if reason is not None:
            outcome.refuse(group[0].node, reason)
            continue
        _stack(graph, group)
        outcome.fired += 1
    return outcome


def _ends_inside(layer: Layer) -> str | None:
    """Why nothing can follow this layer's outputs; None where something can."""
    outputs, bits = layer.attributes["out_features"], layer.attributes["base_bits"]
    if outputs % TILE:
        return f"{layer.scope} has {outputs} outputs, no multiple of {TILE}"
    planes = layer.inputs["base_scales"].shape[0] // TILE * bits
    if layer.attributes["zero_points"] and planes % 2:
        return f"the zero points of {layer.scope} end inside of a word"
    return None


def _stack(graph: gs.Graph, group: list[Layer]) -> None:
    parent = scope_of(group[0].scope)
    names = tuple(layer.scope.rpartition(".")[2] for layer in group)
    scope = f"{parent}.{NAMES.get(names, '+'.join(names))}"
    inputs = [group[0].inputs["x"]]
    for operand in _OPERANDS:
        if operand in group[0].inputs:
            parts = [weight_of(layer.inputs[operand]) for layer in group]
            inputs.append(gs.Constant(f"{scope}.{operand}", concatenated([part for part in parts if part is not None])))
    sizes = [layer.attributes["out_features"] for layer in group]
    results = [layer.node.outputs[0] for layer in group]
    for layer in group:
        layer.node.outputs.clear()
    both = variable(f"{scope}.out")
    attributes = group[0].attributes | {"out_features": sum(sizes)}
    graph.nodes.append(gs.Node(group[0].node.op, scope, attributes, inputs, [both], domain=group[0].node.domain))
    if not _packed(results, both):
        split = [both, constant(f"{scope}.sizes", sizes, np.int64)]
        graph.nodes.append(gs.Node("Split", f"{scope}.split", {"axis": -1}, split, results))


def _packed(results: list[gs.Tensor], both: gs.Variable) -> bool:
    """Give the outputs to the attention that reads them as its query, key and value, if one does."""
    readers = [tensor.outputs for tensor in results]
    if len(results) != 3 or any(len(nodes) != 1 for nodes in readers):
        return False
    node = readers[0][0]
    if node.op != "GroupQueryAttention" or any(a is not b for a, b in zip(node.inputs[:3], results, strict=True)):
        return False
    node.inputs = [both, gs.Variable.empty(), gs.Variable.empty(), *node.inputs[3:]]
    return True


RULE = Rule(
    name="stack_bases",
    requires="layers of a base alone that read one input",
    ensures="those of the same bits and blocks are one layer",
    apply=apply,
)
