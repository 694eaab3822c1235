"""Single rules on graphs of a few nodes made by hand: where they fire and where they refuse."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from edgekit.compress.blockwise import BlockQuantized, quantize_blocks
from edgekit.compress.quantizer import QuantizationSettings, QuantizedModel
from edgekit.errors import RewriteError
from edgekit.rewrite.pipelines import PIPELINES, rule_named
from edgekit.rewrite.rule import Context, Geometry, Outcome, Rule, forbid_op, run_rule
from edgekit.rewrite.weights import Weight

RNG = np.random.default_rng(0)


def context(layers: int = 0, quantized: dict[str, BlockQuantized] | None = None) -> Context:
    model = None if quantized is None else QuantizedModel(QuantizationSettings(4), quantized)
    return Context(Geometry(layers, 4, 2, 16, 64, 100, tied=False), quantized=model)


def weight(name: str, *shape: int) -> gs.Constant:
    """A constant with a deferred value, and its own name as its source."""
    made = Weight(shape, np.float32, lambda: np.ones(shape, np.float32), name)
    made.sources = (name,)
    return gs.Constant(name, made)


class Build:
    """A graph that grows by nodes; its input is x."""

    def __init__(self) -> None:
        self.x = gs.Variable("x", np.float32, ["B", "S", 64])
        self.graph = gs.Graph(inputs=[self.x], opset=23)
        self._count = itertools.count()

    def __call__(self, op: str, *inputs: gs.Tensor, outputs: int = 1, **attributes: Any) -> Any:
        made = [gs.Variable(f"t{next(self._count)}", np.float32) for _ in range(outputs)]
        self.graph.nodes.append(gs.Node(op, f"{op}.{next(self._count)}", attributes, list(inputs), made))
        return made[0] if outputs == 1 else made

    def apply(self, rule: str, *results: gs.Variable, quantized: dict[str, BlockQuantized] | None = None) -> Outcome:
        """Apply the rule, its check too; the expected counts are those of whole models and are left out."""
        self.graph.outputs = list(results)
        found = rule_named(rule)
        outcome = found.apply(self.graph, context(quantized=quantized))
        self.graph.cleanup(remove_unused_graph_inputs=False).toposort()
        if found.check is not None:
            found.check(self.graph)
        return outcome

    def ops(self) -> list[str]:
        return [node.op for node in self.graph.nodes]


def reasons(outcome: Outcome) -> str:
    assert outcome.fired == 0
    (refusal,) = outcome.refused
    return refusal.reason


def test_every_rule_of_a_pipeline_has_its_own_name() -> None:
    for name in set(itertools.chain(*PIPELINES.values())):
        assert rule_named(name).name == name


# ---- fold_weight_transpose


def test_a_transposed_matrix_is_folded() -> None:
    build = Build()
    product = build("MatMul", build.x, build("Transpose", weight("w", 8, 64), perm=[1, 0]))
    assert build.apply("fold_weight_transpose", product).fired == 1
    (node,) = build.graph.nodes
    assert (node.op, node.inputs[1].shape) == ("MatMul", (64, 8))


def test_another_permutation_is_refused() -> None:
    build = Build()
    product = build("MatMul", build.x, build("Transpose", weight("w", 64, 8), perm=[0, 1]))
    assert "permutes [0, 1], not [1, 0]" in reasons(build.apply("fold_weight_transpose", product))
    assert build.ops() == ["Transpose", "MatMul"]


def test_a_matrix_with_another_reader_is_not_folded() -> None:
    build = Build()
    table = weight("model.embed_tokens.weight", 100, 64)
    found = build("Gather", table, gs.Constant("ids", np.zeros(1, np.int64)))
    product = build("MatMul", build.x, build("Transpose", table, perm=[1, 0]))
    assert "stored twice" in reasons(build.apply("fold_weight_transpose", found, product))


def test_a_transposed_activation_is_no_matrix() -> None:
    build = Build()
    turned = build("Transpose", build.x, perm=[1, 0, 2])
    outcome = build.apply("fold_weight_transpose", turned)
    assert (outcome.fired, outcome.refused) == (0, [])


# ---- fuse_tied_head


def test_a_head_permuted_otherwise_is_refused() -> None:
    build = Build()
    product = build("MatMul", build.x, build("Transpose", weight("e", 64, 100), perm=[0, 1]))
    assert "[0, 1], not [1, 0]" in reasons(build.apply("fuse_tied_head", product))


def test_a_tied_head_reads_the_table_as_it_is() -> None:
    build = Build()
    table = weight("e", 100, 64)
    product = build("MatMul", build.x, build("Transpose", table, perm=[1, 0]))
    assert build.apply("fuse_tied_head", product).fired == 1
    (node,) = build.graph.nodes
    assert (node.op, node.domain, node.attrs["transB"]) == ("FusedMatMul", "com.microsoft", 1)
    assert node.inputs[1] is table


# ---- pack_gate_up


def gate_and_up(build: Build, up_name: str = "mlp.up_proj.weight_t", up_width: int = 96) -> Sequence[gs.Variable]:
    gate = build("MatMul", build.x, weight("mlp.gate_proj.weight_t", 64, 96))
    return gate, build("MatMul", build.x, weight(up_name, 64, up_width))


def test_gate_and_up_are_packed() -> None:
    build = Build()
    results = gate_and_up(build)
    assert build.apply("pack_gate_up", *results).fired == 1
    assert build.ops() == ["MatMul", "Split"]
    packed = build.graph.nodes[0].inputs[1]
    assert (packed.name, packed.shape) == ("mlp.gate_up_proj.weight_t", (64, 192))
    assert packed._values.sources == ("mlp.gate_proj.weight_t", "mlp.up_proj.weight_t")
    assert list(build.graph.nodes[1].outputs) == list(results)


@pytest.mark.parametrize("other", [{"up_name": "other.up_proj.weight_t"}, {"up_width": 32}])
def test_a_gate_without_its_up_is_refused(other: dict[str, Any]) -> None:
    build = Build()
    assert "no up projection" in reasons(build.apply("pack_gate_up", *gate_and_up(build, **other)))
    assert build.ops() == ["MatMul", "MatMul"]


# ---- pack_qkv


def attention(build: Build, query: gs.Variable, key: gs.Variable, value: gs.Variable) -> gs.Variable:
    result: gs.Variable = build("GroupQueryAttention", query, key, value, num_heads=4)
    return result


def projections(build: Build) -> list[gs.Variable]:
    widths = {"q": 64, "k": 32, "v": 32}
    return [build("MatMul", build.x, weight(f"attn.{part}_proj.weight_t", 64, n)) for part, n in widths.items()]


def test_query_key_and_value_are_packed() -> None:
    build = Build()
    result = attention(build, *projections(build))
    assert build.apply("pack_qkv", result).fired == 1
    assert build.ops() == ["MatMul", "GroupQueryAttention"]
    assert build.graph.nodes[0].inputs[1].shape == (64, 128)
    assert [tensor.is_empty() for tensor in build.graph.nodes[1].inputs] == [False, True, True]


def test_what_is_not_a_plain_projection_is_refused() -> None:
    build = Build()
    query, key, value = projections(build)
    normalised = build("RMSNormalization", query, weight("norm", 64))
    assert "normalised per head" in reasons(build.apply("pack_qkv", attention(build, normalised, key, value)))


def test_a_projection_with_another_reader_is_refused() -> None:
    build = Build()
    query, key, value = projections(build)
    result = attention(build, query, key, value)
    assert "another reader" in reasons(build.apply("pack_qkv", result, build("Relu", value)))


def test_one_bias_of_three_is_refused() -> None:
    build = Build()
    query, key, value = projections(build)
    biased = build("Add", query, weight("bias", 64))
    assert "having a bias" in reasons(build.apply("pack_qkv", attention(build, biased, key, value)))


def test_something_added_that_is_no_bias_is_refused() -> None:
    build = Build()
    query, key, value = projections(build)
    added = build("Add", query, build.x)
    assert "not a constant bias" in reasons(build.apply("pack_qkv", attention(build, added, key, value)))


def test_projections_of_different_inputs_are_refused() -> None:
    build = Build()
    query, key, _ = projections(build)
    value = build("MatMul", build("Relu", build.x), weight("attn.v2_proj.weight_t", 64, 32))
    assert "differ in their input" in reasons(build.apply("pack_qkv", attention(build, query, key, value)))


# ---- norms


def test_a_residual_sum_is_fused_with_its_norm() -> None:
    build = Build()
    total = build("Add", build.x, build("Relu", build.x))
    normalised = build("RMSNormalization", total, weight("norm", 64), epsilon=1e-6)
    assert build.apply("fuse_skip_norm", normalised, total).fired == 1
    node = build.graph.nodes[-1]
    assert (node.op, node.attrs["epsilon"]) == ("SkipSimplifiedLayerNormalization", 1e-6)
    assert (node.outputs[0].name, node.outputs[3].name) == (normalised.name, total.name)


def test_a_sum_with_a_constant_is_no_residual() -> None:
    build = Build()
    total = build("Add", build.x, weight("bias", 64))
    normalised = build("RMSNormalization", total, weight("norm", 64), epsilon=1e-6)
    assert "a sum with a constant" in reasons(build.apply("fuse_skip_norm", normalised))


# ---- quantised products and tables


def quantized(rows: int = 8, inputs: int = 64, *, offsets: bool = False, symmetric: bool = False) -> BlockQuantized:
    made = quantize_blocks(RNG.standard_normal((rows, inputs)).astype(np.float32), 4, 32, symmetric=symmetric)
    values = np.full_like(made.scales, 0.1) if offsets else None
    return BlockQuantized(made.codes, made.scales, made.zero_points, 4, inputs, values)


def linear(build: Build, name: str, inputs: int = 64) -> gs.Variable:
    """x @ Wᵀ with W [8, inputs], as fold_weight_transpose leaves it."""
    stored = weight(name, 8, inputs)
    result: gs.Variable = build("MatMul", build.x, gs.Constant(name + "_t", stored._values.transposed()))
    return result


@pytest.mark.parametrize("rule", ["quantize_linear", "quantize_linear_qdq"])
def test_a_matrix_without_codes_is_refused(rule: str) -> None:
    build = Build()
    assert reasons(build.apply(rule, linear(build, "a.weight"), quantized={})) == "a.weight is not quantised"
    assert build.ops() == ["MatMul"]


@pytest.mark.parametrize("rule", ["quantize_linear", "quantize_linear_qdq", "quantize_embedding"])
def test_an_unquantised_export_is_left_alone(rule: str) -> None:
    build = Build()
    outcome = build.apply(rule, linear(build, "a.weight"))
    assert (outcome.fired, outcome.refused) == (0, [])


def test_zero_points_are_left_out_where_kernels_assume_them() -> None:
    for symmetric, count in ((True, 3), (False, 4)):
        build = Build()
        matrices = {"a.weight": quantized(symmetric=symmetric)}
        assert build.apply("quantize_linear", linear(build, "a.weight"), quantized=matrices).fired == 1
        (node,) = build.graph.nodes
        assert (node.op, len(node.inputs)) == ("MatMulNBits", count)
        assert (node.attrs["K"], node.attrs["N"], node.attrs["block_size"]) == (64, 8, 32)


def test_block_sums_are_made_once_per_input() -> None:
    build = Build()
    results = [linear(build, name) for name in ("a.weight", "b.weight")]
    matrices = {name: quantized(offsets=True) for name in ("a.weight", "b.weight")}
    assert build.apply("quantize_linear", *results, quantized=matrices).fired == 2
    assert sorted(build.ops()) == ["Concat", "MatMulNBits", "MatMulNBits", "ReduceSum", "Reshape"]
    assert {node.attrs["K"] for node in build.graph.nodes if node.op == "MatMulNBits"} == {66}


def test_zero_points_that_the_standard_form_cannot_hold_are_refused() -> None:
    build = Build()
    matrices = {"a.weight": quantized()}
    assert "TensorRT takes none" in reasons(
        build.apply("quantize_linear_qdq", linear(build, "a.weight"), quantized=matrices)
    )


def test_inputs_that_are_not_whole_blocks_are_refused() -> None:
    build = Build()
    matrices = {"a.weight": quantized(inputs=70, symmetric=True)}
    outcome = build.apply("quantize_linear_qdq", linear(build, "a.weight", 70), quantized=matrices)
    assert "70 inputs are not whole blocks of 32" in reasons(outcome)


def lookup(build: Build, columns: int = 64) -> gs.Variable:
    result: gs.Variable = build("Gather", weight("e.weight", 8, columns), gs.Constant("ids", np.zeros(1, np.int64)))
    return result


def test_a_table_is_looked_up_in_its_codes() -> None:
    build = Build()
    assert build.apply("quantize_embedding", lookup(build), quantized={"e.weight": quantized()}).fired == 1
    (node,) = build.graph.nodes
    assert (node.op, node.attrs["bits"], node.attrs["block_size"]) == ("GatherBlockQuantized", 4, 32)
    assert [tensor.shape for tensor in node.inputs] == [(8, 32), (1,), (8, 2), (8, 1)]


@pytest.mark.parametrize(
    ("columns", "matrices", "reason"),
    [
        (64, {}, "e.weight is not quantised"),
        (70, {"e.weight": quantized(inputs=70)}, "rows of 70 are not whole blocks of 32"),
        # 1024 inputs and their 32 block sums are whole blocks again: rows of the wrong width, were they looked up.
        (1024, {"e.weight": quantized(inputs=1024, offsets=True)}, "offsets, which a lookup cannot add"),
    ],
)
def test_tables_that_cannot_be_looked_up(columns: int, matrices: dict[str, BlockQuantized], reason: str) -> None:
    build = Build()
    assert reason in reasons(build.apply("quantize_embedding", lookup(build, columns), quantized=matrices))
    assert build.ops() == ["Gather"]


# ---- holding rules to their word


def rule_that(outcome: Outcome, **promises: Any) -> Rule:
    return Rule("made_up", "a thing", "no Relu is left", lambda graph, context: outcome, **promises)


def test_a_rule_that_finds_too_little_is_an_error() -> None:
    build = Build()
    build.graph.outputs = [build("Relu", build.x)]
    with pytest.raises(RewriteError) as raised:
        run_rule(rule_that(Outcome(fired=1), expected=lambda context: 2), build.graph, context())
    assert "'made_up' must account for 2 places (a thing)" in raised.value.rule
    assert "fired 1 times and refused 0" in raised.value.fact


def test_a_refusal_with_a_reason_counts_as_found() -> None:
    build = Build()
    build.graph.outputs = [build("Relu", build.x)]
    outcome = Outcome(fired=1)
    outcome.refuse(build.graph.nodes[0], "because")
    assert run_rule(rule_that(outcome, expected=lambda context: 2), build.graph, context()) is outcome
    assert outcome.refused[0].node == build.graph.nodes[0].name


def test_what_a_rule_ensures_is_checked() -> None:
    build = Build()
    build.graph.outputs = [build("Relu", build.x)]
    with pytest.raises(RewriteError) as raised:
        run_rule(rule_that(Outcome(), check=forbid_op("Relu")), build.graph, context())
    assert "ensures: no Relu is left" in raised.value.rule
    assert "1 Relu nodes are left" in raised.value.fact


def test_logits_become_float32_once() -> None:
    build = Build()
    logits = build("Relu", build.x)
    logits.name, logits.dtype = "logits", np.dtype(np.float16)
    assert build.apply("logits_to_float32", logits).fired == 1
    assert build.ops() == ["Relu", "Cast"]
    assert build.apply("logits_to_float32", logits).fired == 0
    assert build.ops() == ["Relu", "Cast"]
