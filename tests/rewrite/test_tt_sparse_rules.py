"""What becomes of compressed layers in each form, and that it gives the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
import torch

from edgekit.contract import FORM_JETPACK6, FORM_ORT, FORM_PORTABLE, FORM_TENSORRT
from edgekit.export.write import MODEL_FILE, write_model
from edgekit.native import ort_library
from edgekit.ops.registry import operator
from edgekit.ops.spec import Case
from edgekit.ops.tt_sparse_linear import reference
from edgekit.rewrite.pipelines import PIPELINES, rule_named
from edgekit.rewrite.rule import Context, Geometry, Outcome, run_rule
from edgekit.rewrite.weights import Weight
from tests.tools import no_native_compiler

SPEC = operator("TTSparseLinear")
CASES = {case.name: case for case in SPEC.cases()}
#: A pair alone by whole blocks and one that is not, 2:4 alone and with a pair, columns, a bitmap; some with a bias.
NAMES = (
    *("pair-alone-of-codes", "pair-alone-of-bytes", "pair-alone-half", "groups-2-of-4", "two-of-four-alone"),
    *("decode-67-to-131", "prefill-2-by-71", "columns-of-codes"),
)


def two_of_four() -> Case:
    """2:4 without a pair, with a bias, from the case of 1 of 4."""
    case = CASES["groups-1-of-4-alone"]
    attributes = case.attributes | {"group_kept": 2, "entries": 35 * 66}

    def inputs(dtype: str) -> dict[str, np.ndarray]:
        draw = np.random.default_rng(5)
        places = np.sort(np.argsort(draw.random((35 * 33, 4)), axis=1)[:, :2], axis=1).astype(np.uint8)
        bits = np.packbits(np.unpackbits(places.reshape(-1, 1), axis=1, count=2, bitorder="little"), bitorder="little")
        words = np.pad(bits, (0, -len(bits) % 4)).view("<i4").astype(np.int32)
        values = draw.standard_normal(35 * 66).astype(np.float16)
        return case.inputs(dtype) | {"positions": words, "values": values}

    return Case("two-of-four-alone", attributes, inputs)


CASES["two-of-four-alone"] = two_of_four()


def graph_of(names: tuple[str, ...], dtype: str) -> gs.Graph:
    """The layers side by side, each with an input of its own and deferred constants, as an export has them."""
    graph = gs.Graph(
        opset=23,
        import_domains=[onnx.helper.make_opsetid("", 23), onnx.helper.make_opsetid("edgekit", 1)],
        ir_version=10,
        name="layers",
    )
    for index, name in enumerate(names):
        case = CASES[name]
        tensors: list[gs.Tensor] = []
        for key, array in case.inputs(dtype).items():
            if key == "x":
                tensors.append(
                    gs.Variable(f"x{index}", array.dtype, [f"batch{index}", f"sequence{index}", array.shape[2]])
                )
                graph.inputs.append(tensors[-1])
            else:
                tensors.append(gs.Constant(f"layers.{index}.proj.{key}", deferred(array)))
        shape = [f"batch{index}", f"sequence{index}", case.attributes["out_features"]]
        y = gs.Variable(f"y{index}", np.dtype(dtype), shape)
        graph.outputs.append(y)
        graph.nodes.append(gs.Node(SPEC.name, name, dict(case.attributes), tensors, [y], domain="edgekit"))
    return graph


def deferred(array: np.ndarray) -> Weight:
    return Weight(array.shape, array.dtype, lambda: array)


def rewritten(graph: gs.Graph, form: str, dtype: str) -> dict[str, Outcome]:
    geometry = Geometry(0, 1, 1, 4, 4, 4, False, operators={SPEC.name: len(graph.nodes)})
    ours = [name for name in PIPELINES[form] if name.startswith(("tt_", "two_of", "inline_tt", "attach", "strip"))]
    return {name: run_rule(rule_named(name), graph, Context(geometry, dtype)) for name in ours}


def check(folder: Path, names: tuple[str, ...], dtype: str, tolerance: float, **options: Any) -> None:
    """The written model gives what the reference gives."""
    made = onnxruntime.SessionOptions()
    made.log_severity_level = 3
    # Fused to a product of codes, activations would be rounded to 8 bits.
    made.add_session_config_entry("session.disable_quant_qdq", "1")
    made.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if "library" in options:
        made.register_custom_ops_library(str(options["library"]))
    session = onnxruntime.InferenceSession(folder / MODEL_FILE, made, providers=["CPUExecutionProvider"])
    given = [CASES[name].inputs(dtype) for name in names]
    found = session.run(None, {f"x{index}": inputs["x"] for index, inputs in enumerate(given)})
    for name, inputs, y in zip(names, given, found, strict=True):
        wide = {k: torch.from_numpy(v.astype("d") if v.dtype == np.dtype(dtype) else v) for k, v in inputs.items()}
        expected = reference(CASES[name].attributes, wide)["y"].numpy()
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 5e-6), ("float16", 5e-3)])
def test_portable_layers_are_standard_operators(tmp_path: Path, dtype: str, tolerance: float) -> None:
    graph = graph_of(NAMES, dtype)
    outcomes = rewritten(graph, FORM_PORTABLE, dtype)
    assert {name: outcome.fired for name, outcome in outcomes.items()} == {
        "tt_pair_to_products": 3,
        "inline_tt_sparse": 5,
        "attach_functions": 0,
    }
    reasons = [refusal.reason for refusal in outcomes["tt_pair_to_products"].refused]
    assert len(reasons) == 5
    assert "it has a residual of 3360 entries" in reasons
    model = write_model(graph, tmp_path)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    onnx.checker.check_model(str(tmp_path / MODEL_FILE), full_check=True)
    kinds = [t.data_type for t in model.graph.initializer if t.name.endswith("_signed")]
    assert kinds == [onnx.TensorProto.INT4] * 2, "codes of whole blocks stay codes; others do not have them"
    check(tmp_path, NAMES, dtype, tolerance)


def test_layers_for_onnx_runtime_are_operators_with_a_body_per_variant(tmp_path: Path) -> None:
    graph = graph_of(NAMES, "float32")
    outcomes = rewritten(graph, FORM_ORT, "float32")
    assert {name: outcome.fired for name, outcome in outcomes.items()} == {"attach_functions": len(NAMES)}
    model = write_model(graph, tmp_path)
    variants = {node.overload for node in model.graph.node}
    assert {node.op_type for node in model.graph.node} == {SPEC.name}
    assert {(function.name, function.overload) for function in model.functions} == {(SPEC.name, v) for v in variants}
    assert len(variants) == len(NAMES)
    onnx.checker.check_model(str(tmp_path / MODEL_FILE), full_check=True)
    check(tmp_path, NAMES, "float32", 5e-6)


def test_they_run_in_the_native_library(tmp_path: Path) -> None:
    if reason := no_native_compiler():
        pytest.skip(reason)
    graph = graph_of(NAMES, "float32")
    rewritten(graph, FORM_ORT, "float32")
    model = write_model(graph, tmp_path)
    # Bodies that give nothing that is asked for: only the library can answer.
    for function in model.functions:
        function.node[-1].op_type = "Neg"
    onnx.save(model, tmp_path / MODEL_FILE)
    check(tmp_path, NAMES, "float32", 5e-6, library=ort_library(lambda text: None))


def test_layers_of_one_variant_have_a_body_without_an_overload(tmp_path: Path) -> None:
    graph = graph_of(("decode-67-to-131", "one-of-everything"), "float32")
    rewritten(graph, FORM_ORT, "float32")
    model = write_model(graph, tmp_path)
    assert [(function.name, function.overload) for function in model.functions] == [(SPEC.name, "")]
    assert [node.overload for node in model.graph.node] == ["", ""]


@pytest.mark.parametrize("form", [FORM_TENSORRT, FORM_JETPACK6])
def test_tensorrt_gets_plain_products_for_pairs_and_for_two_of_four(tmp_path: Path, form: str) -> None:
    graph = graph_of(NAMES, "float16")
    outcomes = rewritten(graph, form, "float16")
    pairs = "tt_pair_to_products" if form == FORM_TENSORRT else "tt_pair_to_plain_products"
    assert outcomes[pairs].fired == 3
    assert outcomes["two_of_four_to_product"].fired == 1
    reasons = {refusal.node: refusal.reason for refusal in outcomes["two_of_four_to_product"].refused}
    assert "a pair beside its 2:4 residual" in reasons["groups-2-of-4"]
    assert "does not keep two of every four" in reasons["decode-67-to-131"]
    assert sorted(n.name for n in graph.nodes if n.op == SPEC.name) == sorted(
        ("groups-2-of-4", "decode-67-to-131", "prefill-2-by-71", "columns-of-codes")
    )
    codes = [node for node in graph.nodes if node.op == "DequantizeLinear"]
    assert len(codes) == (2 if form == FORM_TENSORRT else 0)
    assert bool(graph.functions) == (form == FORM_TENSORRT)
    (product,) = [node for node in graph.nodes if node.name.endswith(".two_of_four")]
    matrix = product.inputs[1]._values.load()
    assert (np.count_nonzero(matrix.reshape(33, 4, 35), axis=1) <= 2).all()


def test_their_plain_products_give_the_same_numbers(tmp_path: Path) -> None:
    names = tuple(name for name in NAMES if "alone" in name)
    graph = graph_of(names, "float32")
    rewritten(graph, FORM_JETPACK6, "float32")
    write_model(graph, tmp_path)
    check(tmp_path, names, "float32", 5e-6)
