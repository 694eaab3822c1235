"""The rules for factorised attention on graphs of a few nodes made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx.reference import ReferenceEvaluator

from edgekit.compress.blockwise import BlockQuantized, quantize_blocks
from edgekit.compress.quantizer import QuantizationSettings, QuantizedModel
from edgekit.contract import ATTENTION_MASK
from edgekit.rewrite.pipelines import rule_named
from edgekit.rewrite.rule import Context, Geometry, Outcome
from edgekit.rewrite.weights import Weight

HIDDEN, HEADS, SIZE = 64, 4, 16


def weight(name: str, *shape: int) -> gs.Constant:
    values = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)
    made = Weight(shape, np.float32, lambda: values, name)
    made.sources = (name.replace("_t", ""),)
    return gs.Constant(name, made)


def context(quantized: dict[str, BlockQuantized] | None = None) -> Context:
    model = None if quantized is None else QuantizedModel(QuantizationSettings(8), quantized)
    geometry = Geometry(1, HEADS, 2, SIZE, HIDDEN, 100, tied=False, operators={"TPAAttention": 1})
    return Context(geometry, quantized=model)


def projections(*names: str) -> tuple[gs.Graph, list[gs.Variable]]:
    """x times a matrix of [64, 8 * (i + 1)] per name, in one attention module."""
    x = gs.Variable("x", np.float32, ["B", "S", HIDDEN])
    graph, outputs = gs.Graph(inputs=[x], opset=23), []
    for i, name in enumerate(names):
        output = gs.Variable(f"{name}.out", np.float32)
        matrix = weight(f"model.layers.0.self_attn.{name}.weight_t", HIDDEN, 8 * (i + 1))
        graph.nodes.append(gs.Node("MatMul", name, {}, [x, matrix], [output]))
        outputs.append(output)
    graph.outputs = outputs
    return graph, outputs


def apply(rule: str, graph: gs.Graph, given: Context) -> Outcome:
    outcome = rule_named(rule).apply(graph, given)
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    return outcome


# ---- pack_factors


def test_projections_of_one_input_become_one() -> None:
    graph, outputs = projections("q_a_proj", "q_b_proj", "k_b_proj")
    before = [node.inputs[1]._values.load() for node in graph.nodes]
    assert apply("pack_factors", graph, context()).fired == 1
    product, split = graph.nodes
    assert product.name == "model.layers.0.self_attn.q_a_proj+q_b_proj+k_b_proj"
    np.testing.assert_array_equal(product.inputs[1]._values.load(), np.concatenate(before, axis=1))
    assert list(split.inputs[1].values) == [8, 16, 24]
    assert split.outputs == outputs


def test_the_output_projection_and_other_modules_are_left_alone() -> None:
    graph, _ = projections("o_proj", "k_b_proj")
    other = weight("model.layers.0.mlp.up_proj.weight_t", HIDDEN, 8)
    graph.nodes.append(gs.Node("MatMul", "up", {}, [graph.inputs[0], other], [gs.Variable("up.out")]))
    graph.outputs.append(graph.nodes[-1].outputs[0])
    outcome = apply("pack_factors", graph, context())
    assert outcome.fired == 0
    (refusal,) = outcome.refused
    assert "no other projection" in refusal.reason
    assert len(graph.nodes) == 3


def test_models_without_factors_are_left_alone() -> None:
    graph, _ = projections("q_proj", "k_proj")
    plain = Context(Geometry(1, HEADS, 2, SIZE, HIDDEN, 100, tied=False, operators={"CausalAttention": 1}))
    outcome = apply("pack_factors", graph, plain)
    assert (outcome.fired, outcome.refused, len(graph.nodes)) == (0, [], 2)


def test_what_is_stored_differently_is_not_stacked() -> None:
    graph, _ = projections("q_a_proj", "q_b_proj", "k_a_proj", "k_b_proj")
    matrices = {
        f"model.layers.0.self_attn.{name}.weight": quantize_blocks(np.ones((8, HIDDEN), np.float32), bits, 32)
        for name, bits in (("q_a_proj", 4), ("q_b_proj", 8), ("k_a_proj", 4), ("k_b_proj", 8))
    }
    assert apply("pack_factors", graph, context(matrices)).fired == 2
    names = {node.name.rpartition(".")[2] for node in graph.nodes if node.op == "MatMul"}
    assert names == {"q_a_proj+k_a_proj", "q_b_proj+k_b_proj"}


# ---- masked_factors_to_gqa


def attention(
    key: np.ndarray, value: np.ndarray | None = None, *, columns: list[int] | None = None, **attributes: Any
) -> gs.Graph:
    """One TPAAttention of dense queries; `key` and `value` are its head factors."""
    value = key if value is None else value
    rank, sizes = len(key), ("B", "S")
    attrs = {"scale": 0.25, "value_scale": 1.0, "factored_query": 0, "contextual_key": 0, "contextual_value": 0}
    size = attributes.pop("size", SIZE)
    tensors = [
        gs.Variable("q", np.float32, [*sizes, HEADS, size]),
        gs.Constant("a_k", key),
        gs.Variable("b_k", np.float32, [*sizes, rank, size]),
        gs.Constant("a_v", value),
        gs.Variable("b_v", np.float32, [*sizes, len(value), size]),
        gs.Variable("past_key_values.3.key_b", np.float32, ["B", "P", rank, size]),
        gs.Variable("past_key_values.3.value_b", np.float32, ["B", "P", len(value), size]),
        gs.Variable(ATTENTION_MASK, np.int64, ["B", "T"]),
        gs.Constant("cos", np.zeros((32, size // 2), np.float32)),
        gs.Constant("sin", np.zeros((32, size // 2), np.float32)),
        gs.Constant("frequencies", np.array(columns or range(size // 2))),
    ]
    outputs = [gs.Variable("y", np.float32, [*sizes, HEADS, size])]
    for name, rows in (("key_b", rank), ("value_b", len(value))):
        outputs.append(gs.Variable(f"present.3.{name}", np.float32, ["B", "T", rows, size]))
    node = gs.Node("TPAAttention", "attend", {**attrs, **attributes}, tensors, outputs, domain="edgekit")
    inputs = [tensor for tensor in tensors if isinstance(tensor, gs.Variable)]
    return gs.Graph(nodes=[node], inputs=inputs, outputs=outputs, opset=23)


GROUPS = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], np.float32)


def test_factors_that_pick_a_row_per_head_become_grouped_attention() -> None:
    graph = attention(GROUPS)
    assert apply("masked_factors_to_gqa", graph, context()).fired == 1
    grouped = next(node for node in graph.nodes if node.op == "GroupQueryAttention")
    assert (grouped.attrs["num_heads"], grouped.attrs["kv_num_heads"], grouped.attrs["scale"]) == (4, 2, 0.25)
    cache = {tensor.name: tensor.shape for tensor in [*graph.inputs, *graph.outputs] if ".3." in tensor.name}
    assert cache["past_key_values.3.key"] == ["batch_size", 2, "past_sequence_length", SIZE]
    assert cache["present.3.value"] == ["batch_size", 2, "total_sequence_length", SIZE]
    assert not any(node.op == "TPAAttention" for node in graph.nodes)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (lambda: attention(GROUPS * 2), "mix heads"),
        (lambda: attention(GROUPS[::-1].copy()), "mix heads"),
        (lambda: attention(GROUPS, np.ones((1, 4), np.float32)), "mix heads"),
        (lambda: attention(np.ones((1, 4), np.float32)), "one key row"),
        (lambda: attention(GROUPS, columns=[0] * 8), "selected frequencies"),
        (lambda: attention(GROUPS, size=12), "features"),
        (lambda: attention(GROUPS, value_scale=0.5), "scaled"),
        (lambda: attention(GROUPS, contextual_key=1), "follow the token"),
        (lambda: attention(GROUPS, factored_query=1), "follow the token"),
    ],
)
def test_other_factors_keep_their_operator_and_the_reason_is_told(graph: Any, reason: str) -> None:
    made = graph()
    outcome = apply("masked_factors_to_gqa", made, context())
    assert outcome.fired == 0
    (refusal,) = outcome.refused
    assert reason in refusal.reason
    assert [node.op for node in made.nodes] == ["TPAAttention"]


# ---- share_factor_caches


def test_caches_become_buffers() -> None:
    graph = attention(GROUPS)
    assert apply("share_factor_caches", graph, context()).fired == 1
    (node,) = graph.nodes
    assert node.attrs["in_place"] == 1
    shapes = {tensor.name: tensor.shape for tensor in [*graph.inputs, *graph.outputs]}
    assert shapes["past_key_values.3.key_b"] == ["B", "cache_capacity", 2, SIZE]
    assert shapes["past_key_values.3.value_b"] == ["B", "cache_capacity", 2, SIZE]
    assert shapes["attention_mask"] == ["B", "T"]


def test_a_cache_inside_the_graph_is_left_alone() -> None:
    graph = attention(GROUPS)
    for tensor in graph.nodes[0].outputs[1:]:
        tensor.name = "inside." + tensor.name
    outcome = apply("share_factor_caches", graph, context())
    assert outcome.fired == 0
    assert "not inputs and outputs of the graph" in outcome.refused[0].reason
    assert "in_place" not in graph.nodes[0].attrs


# ---- lower_cast_like, lower_integer_clip


def single(op: str, inputs: list[gs.Tensor], dtype: Any) -> gs.Graph:
    """One node over graph inputs and constants."""
    output = gs.Variable("y", dtype, ["N"])
    variables = [tensor for tensor in inputs if isinstance(tensor, gs.Variable) and tensor.name]
    return gs.Graph([gs.Node(op, "node", {}, inputs, [output])], variables, [output], opset=20)


def test_a_cast_like_becomes_a_cast_to_the_type_it_follows() -> None:
    x, like = gs.Variable("x", np.float32, ["N"]), gs.Variable("like", np.float16, ["N"])
    graph = single("CastLike", [x, like], np.float16)
    assert apply("lower_cast_like", graph, context()).fired == 1
    (node,) = graph.nodes
    assert (node.op, node.inputs, node.attrs["to"]) == ("Cast", [x], onnx.TensorProto.FLOAT16)
    graph = single("CastLike", [x, gs.Variable("like", None, ["N"])], None)
    outcome = apply("lower_cast_like", graph, context())
    assert outcome.fired == 0
    assert "type of like is not known" in outcome.refused[0].reason


@pytest.mark.parametrize("bounds", [(2, None), (None, 5), (2, 5)])
def test_integers_are_bounded_by_max_and_min(bounds: tuple[int | None, int | None]) -> None:
    x = gs.Variable("x", np.int64, ["N"])
    limits = [
        gs.Variable.empty() if value is None else gs.Constant(f"b{i}", np.array(value))
        for i, value in enumerate(bounds)
    ]
    graph = single("Clip", [x, *limits], np.int64)
    values = np.arange(9)
    assert apply("lower_integer_clip", graph, context()).fired == 1
    assert {node.op for node in graph.nodes} == {
        op for op, b in zip(("Max", "Min"), bounds, strict=True) if b is not None
    }
    (found,) = ReferenceEvaluator(gs.export_onnx(graph)).run(None, {"x": values})
    np.testing.assert_array_equal(found, values.clip(*bounds))


def test_floating_point_keeps_its_clip() -> None:
    graph = single(
        "Clip", [gs.Variable("x", np.float32, ["N"]), gs.Constant("low", np.zeros((), np.float32))], np.float32
    )
    outcome = apply("lower_integer_clip", graph, context())
    assert (outcome.fired, outcome.refused, graph.nodes[0].op) == (0, [], "Clip")
