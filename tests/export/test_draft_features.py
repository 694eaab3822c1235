"""The decoder's features: a rewritten graph with them is the one without, and they are the model's hidden states."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from edgekit import contract
from edgekit.compress.quantizer import QuantizedModel
from edgekit.compress.units import is_matrix
from edgekit.errors import ExportError, SessionError
from edgekit.export.draft_features import add_draft_features
from edgekit.export.options import ExportOptions
from edgekit.export.write import MODEL_FILE, write_model
from edgekit.parity.torch_session import TorchSession
from edgekit.rewrite.pipelines import rewrite
from edgekit.rewrite.rule import Context
from edgekit.runtime.ort_session import OrtSession
from tests.export.tiny_heads import rounded
from tests.rewrite.tiny_graphs import CONTEXT, Forms, torch_model

LAYERS, HIDDEN = (1, 2), 64
TEXTS = np.random.default_rng(0).integers(3, 90, (1, 23))
CASES = [*((form, "fp32") for form in contract.FORMS), ("ort", "fp16"), ("tensorrt", "fp16")]
CASES += [("ort", "int8"), ("portable", "int8"), ("tensorrt", "int8")]


def rewritten(forms: Forms, form: str, dtype: str) -> tuple[gs.Graph, dict[str, int]]:
    """The decoder's graph after its rules, and how often each fired."""
    options = ExportOptions(dtype=dtype, form=form)
    traced = forms.bound("llama", options.activations)
    outcomes = rewrite(traced.graph, form, Context(traced.geometry, options.activations, _quantized(forms, options)))
    return traced.graph, {name: outcome.fired for name, outcome in outcomes.items()}


def _quantized(forms: Forms, options: ExportOptions) -> QuantizedModel | None:
    if options.quantization is None:
        return None
    checkpoint, result = forms.checkpoint("llama"), QuantizedModel(options.quantization)
    for name in checkpoint.names():
        if is_matrix(name, checkpoint.spec(name).shape):
            result.matrices[name] = rounded(checkpoint.array(name), options.quantization)
    return result


#: What the rules do to two layers: the counts that the rewriting tests hold them to.
FUSED = {"fuse_gqa": 2, "pack_qkv": 2, "pack_gate_up": 2, "fuse_skip_norm": 4, "fuse_norm": 1, "fuse_tied_head": 1}
QUANTIZED = {"ort": {"quantize_linear": 9, "quantize_embedding": 1}}
QDQ = {"quantize_linear_qdq": 15}


@pytest.mark.parametrize(("form", "dtype"), CASES)
def test_the_decoder_is_the_same_but_for_one_output(form: str, dtype: str, forms: Forms, tmp_path: Path) -> None:
    graph, fired = rewritten(forms, form, dtype)
    wanted = FUSED if form == "ort" else {}
    if dtype == "int8":
        wanted = wanted | QUANTIZED.get(form, QDQ)
    assert {name: fired[name] for name in wanted} == wanted
    before, weights = described(graph), constants(graph)
    outputs = [tensor.name for tensor in graph.outputs]
    half = ExportOptions(dtype=dtype, form=form).activations == "float16"
    add_draft_features(graph, LAYERS, HIDDEN, "float16" if half else "float32")
    added = described(graph) - before
    assert before <= described(graph)
    assert Counter(op for op, *_ in added.elements()) == Counter(["Slice", "Slice", "Concat"] + ["Cast"] * half)
    assert constants(graph) == weights
    assert [tensor.name for tensor in graph.outputs] == [*outputs, contract.DRAFT_FEATURES]
    model = write_model(graph, tmp_path)
    features = model.graph.output[-1].type.tensor_type
    assert features.elem_type == onnx.TensorProto.FLOAT
    shape = [axis.dim_param or axis.dim_value for axis in features.shape.dim]
    assert shape == ["batch_size", "kept_sequence_length", len(LAYERS) * HIDDEN]


def described(graph: gs.Graph) -> Counter[tuple[str, ...]]:
    """Every node by its operator and its tensors."""
    return Counter(
        (
            node.op,
            node.domain or "",
            repr(sorted(node.attrs.items(), key=lambda item: item[0])),
            *(tensor.name for tensor in (*node.inputs, *node.outputs)),
        )
        for node in graph.nodes
    )


def constants(graph: gs.Graph) -> set[str]:
    return {name for name, tensor in graph.tensors().items() if isinstance(tensor, gs.Constant)}


def featured(forms: Forms, form: str, dtype: str, folder: Path) -> OrtSession:
    graph, _ = rewritten(forms, form, dtype)
    options = ExportOptions(dtype=dtype, form=form)
    add_draft_features(graph, LAYERS, HIDDEN, options.activations)
    write_model(graph, folder)
    kind = contract.CACHE_SHARED if form in ("ort", "tensorrt") else contract.CACHE_CONCAT
    return OrtSession(folder / MODEL_FILE, cache_kind=kind, capacity_limit=CONTEXT, threads=1)


#: Absolute, of a residual stream that reaches 10; with half precision relative to that.
TOLERANCE = {"fp32": 2e-4, "fp16": 0.05}


@pytest.mark.parametrize(("form", "dtype"), [case for case in CASES if case[1] != "int8"])
def test_features_are_the_models_hidden_states(form: str, dtype: str, forms: Forms, tmp_path: Path) -> None:
    reference = TorchSession(torch_model(forms.checkpoint("llama")), feature_layers=LAYERS)
    session = featured(forms, form, dtype, tmp_path)
    assert session.features is None
    for start, end, keep in ((0, 9, 0), (9, 10, 1), (10, 14, 3), (14, 23, 99)):
        for each in (session, reference):
            each.forward(TEXTS[:, start:end], keep=keep)
        found, expected = session.features, reference.features
        assert found is not None
        assert expected is not None
        assert found.dtype == np.float32
        assert found.shape == (1, min(keep, end - start) or end - start, len(LAYERS) * HIDDEN)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE[dtype])
        hidden = np.concatenate([reference.hidden[layer] for layer in LAYERS], -1)
        np.testing.assert_array_equal(expected, hidden[:, -found.shape[1] :])
    assert np.abs(expected).max() > 2


def test_a_rollback_leaves_the_features_and_a_failure_too(forms: Forms, tmp_path: Path) -> None:
    session = featured(forms, "ort", "fp32", tmp_path)
    session.forward(np.tile(TEXTS, 2))
    assert session.features is not None
    before = session.features.copy()
    with pytest.raises(SessionError, match="fit into the context"):
        session.forward(TEXTS)
    session.rollback(5)
    np.testing.assert_array_equal(session.features, before)
    session.close()
    assert session.features is None


def test_a_graph_without_the_residual_stream_is_refused(forms: Forms) -> None:
    graph, _ = rewritten(forms, "ort", "fp32")
    with pytest.raises(ExportError, match="residual stream") as caught:
        add_draft_features(graph, (1, 9), HIDDEN, "float32")
    assert "hidden.9" in caught.value.fact
    for node in graph.nodes:
        if node.op == "Slice":
            node.inputs[1] = gs.Constant("start", np.array([-1]))
    with pytest.raises(ExportError) as caught:
        add_draft_features(graph, LAYERS, HIDDEN, "float32")
    assert "it cuts 0 times by num_logits_to_keep" in caught.value.fact
