"""edgekit::TTSparseLinear → the standard operators of its function body, in the graph itself.

What is stored stays stored: the operators take codes, columns and bitmaps out of their words, and a runtime that folds
constants does so once, when it loads the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgekit.rewrite.rule import Context, Outcome, Rule, forbid_op
from edgekit.rewrite.tt_sparse import SPEC, Layer, layers


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    for layer in layers(graph):
        body = SPEC.function(graph.opset, layer.attributes, context.dtype)
        _inline(layer, body)
        outcome.fired += 1
    return outcome


def _inline(layer: Layer, body: onnx.FunctionProto) -> None:
    output = layer.node.outputs[0]
    tensors: dict[str, gs.Tensor] = {name: layer.inputs[name] for name in body.input}
    tensors[body.output[0]] = output
    output.inputs.clear()
    for proto in body.node:
        name = f"{layer.scope}.{proto.name}"
        if proto.op_type == "Constant":
            tensors[proto.output[0]] = gs.Constant(name, _value(layer, proto))
            continue
        made = [tensors.setdefault(each, gs.Variable(f"{layer.scope}.{each}")) for each in proto.output]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        attributes = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
        inputs = [tensors[each] for each in proto.input]
        layer.graph.nodes.append(gs.Node(proto.op_type, name, attributes, inputs, made))


def _value(layer: Layer, proto: onnx.NodeProto) -> Any:
    (attribute,) = proto.attribute
    if attribute.ref_attr_name:
        return np.asarray(layer.attributes[attribute.ref_attr_name], np.int64)
    value = onnx.helper.get_attribute_value(attribute)
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value, np.int64)


RULE = Rule(
    name="inline_tt_sparse",
    requires="an edgekit::TTSparseLinear",
    ensures="it is standard operators",
    apply=apply,
    check=forbid_op(SPEC.name),
)
