"""edgekit's operators that are still in the graph get their bodies: one ONNX function per operator.

A runtime that has the native library runs the node; every other one runs the body. ONNX functions are found by name, so
all nodes of an operator must be of one variant and one element type; their sizes may differ. Where an operator mixes
variants, each has a function of its own, whose name says which until the model is written with ONNX's overloads, for
which graphsurgeon has no place.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.importers.onnx_importer import OnnxImporter

from edgekit.contract import OPERATOR_DOMAIN as DOMAIN
from edgekit.errors import RewriteError
from edgekit.ops.registry import operator
from edgekit.ops.spec import GENERIC, OpSpec
from edgekit.rewrite.rule import Context, Outcome, Rule

#: Between an operator's name and that of a variant, in the names of functions.
OVERLOAD = ":"


def overloaded(spec: OpSpec, node: gs.Node) -> str:
    """The name of the function of a node's variant among several."""
    return f"{spec.name}{OVERLOAD}{spec.overload(node.attrs)}"


def with_overloads(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, with the names of functions that stand for variants split into name and overload."""
    several = set()
    for function in model.functions:
        name, mark, overload = function.name.partition(OVERLOAD)
        if mark:
            function.name, function.overload = name, overload
            several.add((function.domain, name))
    for node in model.graph.node:
        if (node.domain, node.op_type) in several:
            values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            node.overload = operator(node.op_type).overload(values)
    return model


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    found: dict[str, list[gs.Node]] = defaultdict(list)
    for node in graph.nodes:
        if node.domain == DOMAIN:
            found[node.op].append(node)
    for name, nodes in found.items():
        spec = operator(name)
        if spec.trace_only:
            raise RewriteError(
                f"{DOMAIN}::{name} must be gone before functions are attached",
                f"{len(nodes)} are left, the first is {nodes[0].name}: {spec.trace_only}",
                "report this model",
            )
        for node in nodes:
            _check_and_complete(spec, node, context.dtype)
        bodies = {overloaded(spec, node): node.attrs for node in nodes} if spec.mixes else {}
        if len(bodies) <= 1:
            bodies = {name: _common_variant(spec, nodes)}
        kept = [f for f in graph.functions if f.domain != DOMAIN or f.name.partition(OVERLOAD)[0] != name]
        graph.functions = kept
        for label, attributes in bodies.items():
            graph.functions.append(_imported(spec.function(graph.opset, attributes, context.dtype), graph))
            graph.functions[-1].name = label
        outcome.fired += len(nodes)
    if found and not any(entry.domain == DOMAIN for entry in graph.import_domains or []):
        version = max(operator(name).version for name in found)
        graph.import_domains = [*(graph.import_domains or []), onnx.helper.make_opsetid(DOMAIN, version)]
    return outcome


def _check_and_complete(spec: OpSpec, node: gs.Node, dtype: str) -> None:
    """Write every attribute out, and hold the node to its operator's signature."""
    node.attrs = spec.complete(dict(node.attrs))
    inputs, outputs = spec.active_inputs(node.attrs), spec.active_outputs(node.attrs)
    if (len(node.inputs), len(node.outputs)) != (len(inputs), len(outputs)):
        variant = ", ".join(f"{name}={node.attrs[name]}" for name in spec.variants)
        raise RewriteError(
            f"{spec.name} with {variant} has {len(inputs)} inputs and {len(outputs)} outputs",
            f"{node.name} has {len(node.inputs)} and {len(node.outputs)}",
            "report this model",
        )
    for operand, tensor in zip(inputs, node.inputs, strict=True):
        own = operand.dtype_under(node.attrs)
        want = dtype if own == GENERIC else own
        if tensor.dtype is not None and _name(tensor.dtype) != want:
            raise RewriteError(
                f"the body of {spec.name} is written for {dtype}: all its nodes must have that element type",
                f"{operand.name} of {node.name} is {_name(tensor.dtype)}, not {want}",
                "give all layers one element type",
            )


def _common_variant(spec: OpSpec, nodes: list[gs.Node]) -> dict[str, Any]:
    """The attributes of the first node, if every other one is of the same variant."""
    first = {name: nodes[0].attrs[name] for name in spec.variants}
    for node in nodes[1:]:
        other = {name: node.attrs[name] for name in spec.variants}
        if other != first:
            raise RewriteError(
                f"all {spec.name} nodes of a graph must share one function body",
                f"{nodes[0].name} has {_words(first)}, {node.name} has {_words(other)}",
                "give all layers the same attention variant",
            )
    return dict(nodes[0].attrs)


def _imported(proto: onnx.FunctionProto, graph: gs.Graph) -> gs.Function:
    return OnnxImporter.import_function(proto, model_opset=graph.opset, model_import_domains=proto.opset_import)


def _name(dtype: Any) -> str:
    """ "float32" of what graphsurgeon calls a type: a NumPy type or, where NumPy has none, an ONNX number."""
    if isinstance(dtype, int):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    return str(np.dtype(dtype).name)


def _words(variant: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in variant.items())


def _check(graph: gs.Graph) -> None:
    bodies = {(function.domain, function.name.partition(OVERLOAD)[0]) for function in graph.functions}
    bare = [node.name for node in graph.nodes if node.domain == DOMAIN and (DOMAIN, node.op) not in bodies]
    assert not bare, f"{len(bare)} nodes have no function, the first is {bare[0]}"


RULE = Rule(
    name="attach_functions",
    requires="nodes of the domain edgekit that have a function body",
    ensures="each edgekit operator in the graph has its function body, and all attributes on its nodes",
    apply=apply,
    check=_check,
)
