"""The form for TensorRT 10.3 computes what the portable form computes, in operators that 10.3 has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgekit import contract
from edgekit.errors import RewriteError
from edgekit.ops.registry import operator
from edgekit.rewrite.tensorrt_pipelines import JETPACK6, TENSORRT
from edgekit.rewrite.tensorrt_table import Unsupported, check_operators, operator_table
from tests.rewrite.tensorrt_forms import bound, t6_checkpoint, write_form
from tests.rewrite.tiny_graphs import Forms

TABLE = operator_table("10.3")
#: Left-padded rows of different lengths.
MASK = np.array([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]], np.int64)
CUTS = (5, 8, 9)


def logits(path: Path, model: onnx.ModelProto, vocabulary: int) -> np.ndarray:
    """Logits [B, S, V] of a text that is fed in three pieces."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(0, vocabulary, MASK.shape)
    cache: dict[str, np.ndarray] = {}
    for value in model.graph.input:
        if value.name.startswith("past_key_values"):
            tensor = value.type.tensor_type
            sizes = {contract.AXIS_BATCH: len(MASK), contract.AXIS_PAST: 0, contract.AXIS_CAPACITY: MASK.shape[1] + 3}
            shape = [sizes.get(axis.dim_param, axis.dim_value) for axis in tensor.shape.dim]
            cache[value.name] = np.zeros(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    pieces, start = [], 0
    for end in CUTS:
        feed = {contract.INPUT_IDS: ids[:, start:end], contract.ATTENTION_MASK: MASK[:, :end], **cache}
        piece, *presents = session.run(None, feed | {contract.LOGITS_TO_KEEP: np.zeros(1, np.int64)})
        cache = dict(zip(cache, presents, strict=True))
        pieces.append(piece)
        start = end
    return np.concatenate(pieces, 1)[MASK != 0]


def close(found: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    scale = np.abs(expected).max()
    assert np.isfinite(expected).all()
    assert np.abs(found - expected).max() / scale < (1e-5 if dtype == "float32" else 2e-2)


@pytest.mark.parametrize(
    ("name", "dtype"), [("llama", "float32"), ("gemma3_text", "float32"), ("qwen3", "float32"), ("llama", "float16")]
)
def test_attention_is_lowered_to_operators_of_10_3(forms: Forms, tmp_path: Path, name: str, dtype: str) -> None:
    vocabulary = forms.checkpoint(name).config["vocab_size"]
    traced = forms.bound(name, dtype)
    portable, _ = write_form(traced, TENSORRT, tmp_path / "portable", dtype)
    found, outcomes = write_form(traced, JETPACK6, tmp_path / "jetpack6", dtype)
    assert check_operators(portable, TABLE) != []
    assert check_operators(found, TABLE) == []
    onnx.checker.check_model(str(tmp_path / "jetpack6" / "model.onnx"))
    layers = forms.traced(name).geometry.layers
    assert outcomes["lower_attention_products"].fired == layers
    assert outcomes["lower_rotary_embedding"].fired == 2 * layers
    close(
        logits(tmp_path / "jetpack6" / "model.onnx", found, vocabulary),
        logits(tmp_path / "portable" / "model.onnx", portable, vocabulary),
        dtype,
    )


@pytest.mark.parametrize("changes", [{}, {"query": "dense", "contextual": "b", "head_norm": True}], ids=str)
def test_t6_has_bare_plugin_nodes_for_10_3(tmp_path: Path, changes: dict[str, Any]) -> None:
    checkpoint = t6_checkpoint(tmp_path / "checkpoint", **changes)
    traced = bound(checkpoint, "float32")
    portable, _ = write_form(traced, TENSORRT, tmp_path / "portable", "float32")
    found, outcomes = write_form(traced, JETPACK6, tmp_path / "jetpack6", "float32")
    assert [function.name for function in portable.functions] == ["TPAAttention"]
    assert list(found.functions) == []
    assert outcomes["strip_functions"].fired == 1
    assert check_operators(found, TABLE) == []
    assert "functions" in {unsupported.place for unsupported in check_operators(portable, TABLE)}
    nodes = [node for node in found.graph.node if node.domain == "edgekit"]
    assert len(nodes) == 2
    spec = operator("TPAAttention")
    for node in nodes:
        values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert (values["plugin_namespace"], values["plugin_version"]) == (b"edgekit", b"1")
        assert set(values) == {attribute.name for attribute in spec.attributes}

    # With the function put back, in the opset of 10.3, both forms compute the same.
    node_values = {a.name: helper.get_attribute_value(a) for a in nodes[0].attribute}
    restored = onnx.load(tmp_path / "jetpack6" / "model.onnx", load_external_data=False)
    restored.functions.append(spec.function(20, node_values, "float32"))
    onnx.save(restored, tmp_path / "jetpack6" / "restored.onnx")
    close(
        logits(tmp_path / "jetpack6" / "restored.onnx", found, 83),
        logits(tmp_path / "portable" / "model.onnx", portable, 83),
        "float32",
    )


def model_of(*nodes: onnx.NodeProto, dtype: int = TensorProto.FLOAT, opset: int = 20) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", dtype, ["n", 4]),
            helper.make_tensor_value_info("i", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("edgekit", 1)])


def reasons(model: onnx.ModelProto) -> list[Unsupported]:
    return check_operators(model, TABLE)


def test_what_10_3_does_not_take_is_named() -> None:
    [found] = reasons(model_of(helper.make_node("RMSNormalization", ["x", "x"], ["y"], name="norm"), opset=20))
    assert found == Unsupported("norm", "RMSNormalization", "TensorRT 10.3 has no RMSNormalization")
    [found] = reasons(model_of(helper.make_node("Relu", ["x"], ["y"]), opset=21))
    assert found == Unsupported("opset", "", "TensorRT 10.3 takes opset 9 to 20, the model has 21")
    [found] = reasons(model_of(helper.make_node("Softmax", ["x"], ["y"], name="s"), dtype=TensorProto.DOUBLE))
    assert found.reason == "Softmax takes float32, float16, bfloat16, not float64"
    [found] = reasons(model_of(helper.make_node("Unsqueeze", ["x", "i"], ["y"], name="u")))
    assert found.reason == "input 1 of Unsqueeze must be a constant, and i is computed"
    [found] = reasons(model_of(helper.make_node("TPAAppend", ["x", "x", "i"], ["y"], name="a", domain="edgekit")))
    assert found.reason.endswith("that it lacks: plugin_namespace, plugin_version")
    assert reasons(model_of(helper.make_node("Relu", ["x"], ["y"]))) == []


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(RewriteError, match=r"9\.9 is not one of \['10\.15', '10\.3', 'rtx-1\.7'\]"):
        operator_table("9.9")
