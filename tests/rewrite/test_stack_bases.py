"""Layers of a base alone that read one input become one, and give the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest

from edgekit.export.write import MODEL_FILE, write_model
from edgekit.ops.registry import operator
from edgekit.ops.tt_sparse_base import base_operands
from edgekit.rewrite.pipelines import rule_named
from edgekit.rewrite.rule import Context, Geometry, Outcome, run_rule
from edgekit.rewrite.weights import Weight

SPEC = operator("TTSparseLinear")
INPUTS, BLOCK = 128, 64


def constant(name: str, array: np.ndarray) -> gs.Constant:
    return gs.Constant(name, Weight(array.shape, array.dtype, lambda: array))


def layer(graph: gs.Graph, x: gs.Variable, name: str, outputs: int, bits: int = 3, zeros: bool = True) -> np.ndarray:
    """A layer of a base whose output is the graph's; its weights in float64."""
    draw = np.random.default_rng(len(name) + outputs)
    codes = draw.integers(0, 2**bits, (outputs, INPUTS // BLOCK, BLOCK))
    scales = draw.standard_normal((outputs, INPUTS // BLOCK)).astype(np.float16)
    points = draw.integers(0, 2**bits, scales.shape) if zeros else None
    attributes = SPEC.complete(
        {"out_features": outputs, "low_rank": 0, "bias": 0, "residual": 0, "base_bits": bits}
        | {"zero_points": int(zeros), "base_block": BLOCK}
    )
    operands = base_operands(codes, scales, points, bits)
    inputs = [x, *(constant(f"{name}.{key}", array) for key, array in operands.items())]
    y = gs.Variable(f"{name}.y", np.float32, ["batch", "sequence", outputs])
    graph.nodes.append(gs.Node(SPEC.name, name, attributes, inputs, [y], domain="edgekit"))
    graph.outputs.append(y)
    centred = codes - (points[..., None] if points is not None else 2 ** (bits - 1))
    dense: np.ndarray = (centred * scales[..., None].astype("d")).reshape(outputs, INPUTS)
    return dense


def empty_graph() -> tuple[gs.Graph, gs.Variable]:
    imports = [onnx.helper.make_opsetid("", 23), onnx.helper.make_opsetid("edgekit", 1)]
    x = gs.Variable("x", np.float32, ["batch", "sequence", INPUTS])
    return gs.Graph(opset=23, import_domains=imports, ir_version=10, name="layers", inputs=[x]), x


def applied(graph: gs.Graph) -> Outcome:
    context = Context(Geometry(0, 1, 1, 4, 4, 4, False), "float32")
    outcome = run_rule(rule_named("stack_bases"), graph, context)
    run_rule(rule_named("attach_functions"), graph, context)
    return outcome


def check(graph: gs.Graph, folder: Path, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    model = write_model(graph, folder)
    session = onnxruntime.InferenceSession(folder / MODEL_FILE, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((2, 3, INPUTS)).astype("f")
    for name, y in zip(weights, session.run([f"{name}.y" for name in weights], {"x": x}), strict=True):
        expected = x @ weights[name].T
        np.testing.assert_allclose(y, expected, rtol=0, atol=5e-6 * np.abs(expected).max(), err_msg=name)
    return model


def test_three_projections_are_one_product_and_a_split(tmp_path: Path) -> None:
    graph, x = empty_graph()
    sizes = {"a.q_proj": 48, "a.k_proj": 16, "a.v_proj": 17}
    weights = {name: layer(graph, x, name, outputs) for name, outputs in sizes.items()}
    outcome = applied(graph)
    assert (outcome.fired, outcome.refused) == (1, [])
    model = check(graph, tmp_path, weights)
    assert [(node.op_type, node.name) for node in model.graph.node] == [
        (SPEC.name, "a.qkv_proj"), ("Split", "a.qkv_proj.split"),
    ]  # fmt: skip


def test_others_join_their_names_and_only_what_is_alike_is_stacked(tmp_path: Path) -> None:
    graph, x = empty_graph()
    kinds: dict[str, dict[str, Any]] = {"a.one": {}, "a.two": {"bits": 4}, "a.three": {}, "a.four": {"zeros": False}}
    weights = {name: layer(graph, x, name, 32, **kind) for name, kind in kinds.items()}
    assert applied(graph).fired == 1
    model = check(graph, tmp_path, weights)
    assert sorted(n.name for n in model.graph.node if n.op_type == SPEC.name) == ["a.four", "a.one+three", "a.two"]


@pytest.mark.parametrize(
    ("first", "reason"), [(40, "40 outputs, no multiple of 16"), (0, "")], ids=["rows", "a single layer"]
)
def test_what_cannot_be_stacked_stays(first: int, reason: str, tmp_path: Path) -> None:
    graph, x = empty_graph()
    names = {"a.gate_proj": first, "a.up_proj": 32} if first else {"a.up_proj": 32}
    weights = {name: layer(graph, x, name, outputs) for name, outputs in names.items()}
    outcome = applied(graph)
    assert outcome.fired == 0
    assert [reason in refusal.reason for refusal in outcome.refused] == ([True] if reason else [])
    check(graph, tmp_path, weights)


def test_zero_points_that_end_inside_of_a_word_stay_apart(tmp_path: Path) -> None:
    graph, x = empty_graph()
    x.shape = ["batch", "sequence", INPUTS]
    weights = {name: layer(graph, x, name, 16) for name in ("a.gate_proj", "a.up_proj")}
    for node in graph.nodes:  # as one block of 128 inputs would have it: 3 planes of 16 bits
        node.inputs[2] = constant(node.inputs[2].name, np.ones(16, np.float16))
    assert weights
    outcome = run_rule(rule_named("stack_bases"), graph, Context(Geometry(0, 1, 1, 4, 4, 4, False), "float32"))
    assert (outcome.fired, len(outcome.refused)) == (0, 1)
    assert "end inside of a word" in outcome.refused[0].reason


def test_attention_takes_its_query_key_and_value_packed() -> None:
    graph, x = empty_graph()
    for name, outputs in {"a.q_proj": 32, "a.k_proj": 16, "a.v_proj": 16}.items():
        layer(graph, x, name, outputs)
    taken = list(graph.outputs)
    made = gs.Variable("attended", np.float32)
    attention = gs.Node("GroupQueryAttention", "attention", {}, [*taken, x], [made], domain="com.microsoft")
    graph.nodes.append(attention)
    graph.outputs = [made]
    context = Context(Geometry(0, 1, 1, 4, 4, 4, False), "float32")
    assert run_rule(rule_named("stack_bases"), graph, context).fired == 1
    assert [node.op for node in graph.nodes] == [SPEC.name, "GroupQueryAttention"]
    assert attention.inputs[0].name == "a.qkv_proj.out"
    assert all(tensor.is_empty() for tensor in attention.inputs[1:3])
