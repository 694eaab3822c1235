"""Which table an installed TensorRT is held to, what each refuses, where, and what mends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.contract import FORM_JETPACK6, FORM_TENSORRT
from edgekit.errors import RewriteError
from edgekit.rewrite.pipelines import PIPELINES
from edgekit.rewrite.tensorrt_advice import _mends, refused_nodes
from edgekit.rewrite.tensorrt_table import check_operators, known_tables, operator_table, table_for
from tests.build.bundles import tiny_bundle


@pytest.mark.parametrize(
    ("backend", "version", "table"),
    [
        ("tensorrt", "10.3.0.26", "10.3"),
        ("tensorrt", "10.13.2", "10.3"),
        ("tensorrt", "10.15.1", "10.15"),
        ("tensorrt", "10.16.1.11", "10.15"),
        ("tensorrt", "11.4.1", "10.15"),
        ("tensorrt-rtx", "1.7.1.116", "rtx-1.7"),
        ("tensorrt-rtx", "1.10.0", "rtx-1.7"),
    ],
)
def test_the_newest_table_that_is_not_newer(backend: str, version: str, table: str) -> None:
    assert table_for(backend, version).version == table


@pytest.mark.parametrize(("backend", "version"), [("tensorrt", "8.6.1"), ("tensorrt-rtx", "1.0.0")])
def test_a_version_older_than_every_table(backend: str, version: str) -> None:
    with pytest.raises(RewriteError, match=f"version {version} is installed"):
        table_for(backend, version)


def test_a_newer_table_takes_what_an_older_takes() -> None:
    old, new, rtx = (operator_table(name) for name in ("10.3", "10.15", "rtx-1.7"))
    assert known_tables() == ["10.15", "10.3", "rtx-1.7"]
    for name, types in old.operators.items():
        assert set(types) <= set(new.operators[name]), name
        assert set(types) <= set(rtx.operators[name]), name
    assert {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter"} <= set(new.operators)
    assert not {"GroupQueryAttention", "MatMulNBits"} & set(rtx.operators)
    assert old.functions_win
    assert not new.functions_win


def model_of(*nodes: onnx.NodeProto, dtype: int = TensorProto.FLOAT16, opset: int = 23, **constants: Any) -> Any:
    names = {name for node in nodes for name in node.input if name} - {name for node in nodes for name in node.output}
    inputs = [helper.make_tensor_value_info(name, dtype, [2, 2, 2, 2]) for name in sorted(names - set(constants))]
    outputs = [helper.make_tensor_value_info(nodes[-1].output[0], dtype, None)]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, list(constants.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def reasons(model: onnx.ModelProto, table: str = "10.15") -> list[str]:
    return [entry.reason for entry in check_operators(model, operator_table(table))]


def test_parts_of_attention_that_tensorrt_lacks() -> None:
    plain = helper.make_node("Attention", ["q", "k", "v"], ["y"], "a")
    assert reasons(model_of(plain)) == []
    with_past = helper.make_node("Attention", ["q", "k", "v", "", "p", "r"], ["y", "s", "t"], "a", softcap=2.0)
    found = reasons(model_of(with_past))
    assert "Attention must not have its input 4, and p is one" in found
    assert "Attention must not have its output 1, and s is one" in found
    assert any("must not have the attribute softcap" in reason for reason in found)
    unset = helper.make_node("Attention", ["q", "k", "v"], ["y"], "a", softcap=0.0, qk_matmul_output_mode=0)
    assert reasons(model_of(unset)) == []
    grouped = helper.make_node("Attention", ["q", "k", "v"], ["y"], "a", q_num_heads=4)
    assert any("attribute q_num_heads" in reason for reason in reasons(model_of(grouped)))


@pytest.mark.parametrize(
    ("kind", "block", "reason"),
    [
        (TensorProto.INT4, 64, None),
        (TensorProto.INT4, 128, None),
        (TensorProto.INT4, 32, "int4 weights share a scale 64 or 128 at a time, here 32 share one"),
        (TensorProto.INT8, 64, "int8 weights have one per output, here 64 share one"),
        (TensorProto.INT8, 0, None),
    ],
)
def test_blocks_of_quantised_weights(kind: int, block: int, reason: str | None) -> None:
    codes = helper.make_tensor("codes", kind, [128, 4], [1] * 512)
    scales = helper.make_tensor(
        "scales", TensorProto.FLOAT16, [128 // block, 4] if block else [4], [1.0] * (4 * (128 // block if block else 1))
    )
    node = helper.make_node("DequantizeLinear", ["codes", "scales"], ["y"], "d", axis=0 if block else 1)
    if block:
        node.attribute.append(helper.make_attribute("block_size", block))
    assert reasons(model_of(node, codes=codes, scales=scales)) == ([] if reason is None else [reason])


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    return {
        form: onnx.load(tiny_bundle(tmp_path_factory.mktemp(form), form=form).graph, load_external_data=False)
        for form in ("ort", "tensorrt", "jetpack6")
    }


def test_each_form_keeps_to_its_table(graphs: dict[str, onnx.ModelProto]) -> None:
    for table in ("10.15", "rtx-1.7"):
        assert refused_nodes(graphs["tensorrt"], operator_table(table)) == []
        assert refused_nodes(graphs["jetpack6"], operator_table(table)) == []
    assert refused_nodes(graphs["jetpack6"], operator_table("10.3")) == []


def test_every_refusal_says_where_and_what_mends_it(graphs: dict[str, onnx.ModelProto]) -> None:
    found = refused_nodes(graphs["tensorrt"], operator_table("10.3"))
    where = [entry.where for entry in found if entry.operator == "RMSNormalization"]
    assert where == [
        *(f"layer {layer}, {norm}" for layer in (0, 1) for norm in ("input_layernorm", "post_attention_layernorm")),
        "after the last layer",
    ]
    assert all("edgekit export --form jetpack6" in entry.mend for entry in found)
    contributed = refused_nodes(graphs["ort"], operator_table("rtx-1.7"))
    assert {"layer 0", "layer 1"} <= {entry.where.partition(",")[0] for entry in contributed}
    assert all(entry.mend.endswith("edgekit export --form tensorrt") for entry in contributed if "::" in entry.reason)


def test_rules_that_are_named_are_in_the_pipeline_of_their_form() -> None:
    for text in _mends().values():
        if text.startswith("rule "):
            rule, _, form = (
                text.removeprefix("rule ").replace(" --dtype int8", "").partition(": edgekit export --form ")
            )
            assert form in (FORM_TENSORRT, FORM_JETPACK6)
            assert rule in PIPELINES[form], text


def test_a_function_is_refused_where_it_would_win(tmp_path: Path) -> None:
    model = model_of(helper.make_node("Relu", ["x"], ["y"]), opset=20)
    body = helper.make_function("edgekit", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [])
    model.functions.append(body)
    [refused] = refused_nodes(model, operator_table("10.3"))
    assert (refused.place, refused.operator) == ("functions", "edgekit::F")
    assert check_operators(model, operator_table("10.15")) == []
