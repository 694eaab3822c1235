"""Function bodies: one per operator, in the exported model too, and refused where one body cannot serve all nodes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest

from edgekit.errors import RewriteError
from edgekit.ops.registry import operator
from edgekit.ops.spec import OperatorError
from edgekit.rewrite.rule import Context, Geometry, Outcome, run_rule
from edgekit.rewrite.rules.attach_functions import RULE

SPEC = operator("TPAAttention")
GEOMETRY = Geometry(layers=2, heads=3, kv_heads=1, head_dim=4, hidden_size=12, vocab_size=10, tied=False)
SCALES = {"scale": 0.5, "value_scale": 0.25}
CONTEXTUAL = SCALES | {"factored_query": 1, "contextual_key": 1, "contextual_value": 1}
CONSTANT = SCALES | {"factored_query": 0, "contextual_key": 0, "contextual_value": 0}


def node(graph: gs.Graph, prefix: str, attributes: dict[str, Any], dtype: Any = np.float32) -> gs.Node:
    """An attention of its own inputs and outputs, all sizes symbolic."""

    def tensors(operands: Any) -> list[gs.Variable]:
        return [
            gs.Variable(
                prefix + operand.name,
                np.int64 if operand.dtype == "int64" else dtype,
                [prefix + dim.replace("/", "_over_") for dim in operand.form(attributes).dims],
            )
            for operand in operands
        ]

    inputs, outputs = tensors(SPEC.active_inputs(attributes)), tensors(SPEC.active_outputs(attributes))
    made = gs.Node("TPAAttention", prefix + "attention", dict(attributes), inputs, outputs, domain="edgekit")
    graph.nodes.append(made)
    graph.inputs += inputs
    graph.outputs += outputs
    return made


def empty_graph(opset: int = 23) -> gs.Graph:
    imports = [onnx.helper.make_opsetid("", opset)]
    return gs.Graph(opset=opset, import_domains=imports, ir_version=10, name="test")


def attach(graph: gs.Graph, dtype: str = "float32") -> Outcome:
    return run_rule(RULE, graph, Context(GEOMETRY, dtype))


@pytest.mark.parametrize("opset", [20, 23])
def test_the_exported_model_runs(opset: int) -> None:
    graph = empty_graph(opset)
    first, second = node(graph, "a.", CONTEXTUAL), node(graph, "b.", CONTEXTUAL | {"scale": 0.125})
    assert attach(graph).fired == 2
    assert first.attrs == SPEC.complete(CONTEXTUAL)
    assert second.attrs["scale"] == 0.125
    model = gs.export_onnx(graph, do_type_check=False)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert [(function.domain, function.name) for function in model.functions] == [("edgekit", "TPAAttention")]
    assert [(entry.domain, entry.version) for entry in model.functions[0].opset_import] == [("", opset)]
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", opset), ("edgekit", 1)}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    cases = {case.name: case for case in SPEC.cases()}
    one, two = (cases[name].inputs("float32") for name in ("verify-131", "decode-131"))  # other sizes per node
    feeds = {f"a.{name}": value for name, value in one.items()} | {f"b.{name}": value for name, value in two.items()}
    outputs = dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))
    for prefix, inputs, attributes in (("a.", one, first.attrs), ("b.", two, second.attrs)):
        from tests.ops.backends import torch_blocked

        for name, expected in torch_blocked.run(SPEC, attributes, inputs, False).items():
            np.testing.assert_allclose(outputs[prefix + name], expected, rtol=0, atol=1e-5)


def test_applying_it_again_changes_nothing() -> None:
    graph = empty_graph()
    node(graph, "a.", CONSTANT)
    attach(graph)
    once = gs.export_onnx(graph, do_type_check=False)
    attach(graph)
    assert gs.export_onnx(graph, do_type_check=False) == once


def test_a_graph_without_our_operators_is_left_alone() -> None:
    graph = empty_graph()
    x, y = gs.Variable("x", np.float32, [2]), gs.Variable("y", np.float32, [2])
    graph.nodes.append(gs.Node("Relu", inputs=[x], outputs=[y]))
    graph.inputs, graph.outputs = [x], [y]
    assert attach(graph).fired == 0
    assert not graph.functions
    assert [entry.domain for entry in graph.import_domains] == [""]


def test_a_half_precision_body_computes_in_float32() -> None:
    graph = empty_graph()
    node(graph, "a.", CONSTANT, np.float16)
    attach(graph, "float16")
    model = gs.export_onnx(graph, do_type_check=False)
    onnx.checker.check_model(model, full_check=True)
    casts = [attribute.i for n in model.functions[0].node if n.op_type == "Cast" for attribute in n.attribute]
    assert onnx.TensorProto.FLOAT in casts
    assert onnx.TensorProto.FLOAT16 in casts


def test_two_variants_are_refused() -> None:
    graph = empty_graph()
    node(graph, "a.", CONTEXTUAL)
    node(graph, "b.", CONTEXTUAL | {"contextual_value": 0})
    with pytest.raises(RewriteError, match="must share one function body") as caught:
        attach(graph)
    assert "a.attention has" in caught.value.fact
    assert "b.attention has factored_query=1, contextual_key=1, contextual_value=0" in caught.value.fact


def test_another_element_type_is_refused() -> None:
    graph = empty_graph()
    node(graph, "a.", CONTEXTUAL, np.float16)
    with pytest.raises(RewriteError, match="a_q of a.attention is float16, not float32"):
        attach(graph)


def test_a_missing_operand_is_refused() -> None:
    graph = empty_graph()
    node(graph, "a.", CONTEXTUAL).inputs.pop()
    with pytest.raises(RewriteError, match="has 14 inputs and 5 outputs\na.attention has 13 and 5"):
        attach(graph)


def test_a_missing_attribute_is_refused() -> None:
    graph = empty_graph()
    del node(graph, "a.", CONTEXTUAL).attrs["scale"]
    with pytest.raises(OperatorError, match="missing: scale"):
        attach(graph)


def test_an_operator_of_traces_is_refused() -> None:
    graph = empty_graph()
    y = gs.Variable("y", np.float32, [2])
    graph.nodes.append(gs.Node("CausalAttention", "left", inputs=[], outputs=[y], domain="edgekit"))
    graph.outputs = [y]
    with pytest.raises(RewriteError, match="edgekit::CausalAttention must be gone"):
        attach(graph)


def test_needs_no_torch() -> None:
    code = (
        "import sys, edgekit.rewrite.rules.attach_functions\n"
        "from edgekit.ops.registry import operator\n"
        "operator('TPAAppend').function(20, {})\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "False"
