"""Whole pipelines against the PyTorch model they were traced from."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from edgekit.contract import FORM_ORT, FORM_PORTABLE, FORM_TENSORRT
from edgekit.errors import RewriteError
from edgekit.export.write import MODEL_FILE, check_model
from edgekit.rewrite.pipelines import PIPELINES, rewrite
from edgekit.rewrite.rule import Context
from tests.rewrite.tiny_graphs import MODELS, Form, Forms, Run, torch_model, torch_run

LENGTH = 13
CALLS = (6, 4, 1, 1, 1)  # a prompt in two chunks, then single tokens; the second chunk crosses the window's edge


def tokens(forms: Forms, name: str, batch: int = 1) -> np.ndarray:
    vocabulary = forms.checkpoint(name).config["vocab_size"]
    return np.random.default_rng(5).integers(3, vocabulary, (batch, LENGTH))


def in_calls(form: Form, ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    run, parts, start = Run(form, batch=len(ids)), [], 0
    for count in CALLS:
        parts.append(run(ids[:, start : start + count], mask[:, : start + count]))
        start += count
    assert start == LENGTH
    return np.concatenate(parts, axis=1), run.cache()


@pytest.mark.parametrize("form", [FORM_ORT, FORM_PORTABLE, FORM_TENSORRT])  # test_tensorrt_forms.py has the other
@pytest.mark.parametrize("name", MODELS)
def test_a_form_computes_what_the_model_computes(forms: Forms, name: str, form: str) -> None:
    ids = tokens(forms, name)
    mask = np.ones_like(ids)
    expected, cache = torch_run(torch_model(forms.checkpoint(name)), ids, mask)
    assert expected.std() > 0.5  # a tolerance means nothing for values that are all small
    made = forms.form(name, form)
    whole = Run(made)
    for logits, present in ((whole(ids, mask), whole.cache()), in_calls(made, ids, mask)):
        np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)
        assert len(present) == len(cache)
        for mine, theirs in zip(present, cache, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["mistral", "gemma3_text"])
def test_the_window_is_shorter_than_the_text(forms: Forms, name: str) -> None:
    """Else the tests above could not tell a window from none."""
    checkpoint = forms.checkpoint(name)
    ids = tokens(forms, name)
    model = torch_model(checkpoint)
    windowed, _ = torch_run(model, ids, np.ones_like(ids))
    for layer in model.model.layers:
        layer.self_attn.shape = dataclasses.replace(layer.self_attn.shape, window=-1)
    unlimited, _ = torch_run(model, ids, np.ones_like(ids))
    assert np.abs(windowed - unlimited).max() > 0.05


@pytest.mark.parametrize("form", [FORM_PORTABLE, FORM_TENSORRT])
@pytest.mark.parametrize("name", MODELS)
def test_standard_operators_take_a_batch_with_left_padding(forms: Forms, name: str, form: str) -> None:
    ids = tokens(forms, name, batch=2)
    mask = np.ones_like(ids)
    mask[1, :4] = 0
    expected, _ = torch_run(torch_model(forms.checkpoint(name)), ids, mask)
    logits, _ = in_calls(forms.form(name, form), ids, mask)
    np.testing.assert_allclose(logits[0], expected[0], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(logits[1, 4:], expected[1, 4:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", PIPELINES)
def test_half_precision(forms: Forms, form: str) -> None:
    ids = tokens(forms, "llama")
    mask = np.ones_like(ids)
    expected, _ = torch_run(torch_model(forms.checkpoint("llama")), ids, mask)
    logits, cache = in_calls(forms.form("llama", form, "float16"), ids, mask)
    assert logits.dtype == np.float32
    assert {array.dtype for array in cache} == {np.dtype(np.float16)}
    np.testing.assert_allclose(logits, expected, atol=0.05 * float(expected.std()))
    assert not np.allclose(logits, expected, atol=1e-5)  # it is computed in halves


@pytest.mark.parametrize("name", MODELS)
def test_portable_is_standard_onnx(forms: Forms, name: str) -> None:
    path = forms.form(name, FORM_PORTABLE).folder / MODEL_FILE
    check_model(path)
    model = onnx.load(path, load_external_data=False)
    assert {node.domain for node in model.graph.node} == {""}
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
    for node in model.graph.node:
        onnx.defs.get_schema(node.op_type, 23)


def test_what_each_rule_did_to_a_tied_llama(forms: Forms) -> None:
    fired = {name: outcome.fired for name, outcome in forms.form("llama", FORM_ORT).outcomes.items()}
    assert fired == {
        "fold_weight_transpose": 14,
        "fuse_tied_head": 1,
        "fuse_gqa": 2,
        "masked_factors_to_gqa": 0,
        "pack_qkv": 2,
        "pack_gate_up": 2,
        "pack_factors": 0,
        "stack_bases": 0,
        "fuse_skip_norm": 4,
        "fuse_norm": 1,
        "quantize_linear": 0,
        "quantize_embedding": 0,
        "logits_to_float32": 0,
        "attach_functions": 0,
    }
    (refusal,) = forms.form("llama", FORM_ORT).outcomes["fold_weight_transpose"].refused
    assert "stored twice" in refusal.reason


def test_an_untied_head_is_folded(forms: Forms) -> None:
    outcomes = forms.form("llama-untied", FORM_ORT).outcomes
    assert (outcomes["fold_weight_transpose"].fired, outcomes["fold_weight_transpose"].refused) == (15, [])
    assert outcomes["fuse_tied_head"].fired == 0


def test_biases_are_packed_with_their_projections(forms: Forms) -> None:
    made = forms.form("qwen2", FORM_ORT)
    assert made.outcomes["pack_qkv"].fired == 2
    model = onnx.load(made.folder / MODEL_FILE)
    assert sum(node.op_type == "Add" for node in model.graph.node) == 2  # of the packed biases; residuals are fused
    bias = next(value for value in model.graph.initializer if value.name == "model.layers.0.self_attn.qkv_proj.bias")
    assert list(bias.dims) == [(4 + 2 + 2) * 16]


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text"])
def test_normalised_queries_and_keys_are_not_packed(forms: Forms, name: str) -> None:
    outcome = forms.form(name, FORM_ORT).outcomes["pack_qkv"]
    assert outcome.fired == 0
    assert len(outcome.refused) == forms.traced(name).geometry.layers
    assert all("normalised per head" in refusal.reason for refusal in outcome.refused)


def test_taps_keep_their_names(forms: Forms) -> None:
    for form in PIPELINES:
        made = forms.form("llama", form)
        model = onnx.load(made.folder / MODEL_FILE, load_external_data=False)
        outputs = {output for node in model.graph.node for output in node.output}
        assert made.traced.taps == ["hidden.0", "hidden.1", "hidden.2"]
        assert set(made.traced.taps) <= outputs


def test_a_graph_of_fewer_layers_than_the_model_is_an_error(forms: Forms) -> None:
    traced = forms.bound("llama")
    more = dataclasses.replace(traced.geometry, layers=3)
    with pytest.raises(RewriteError) as raised:
        rewrite(traced.graph, FORM_PORTABLE, Context(more))
    assert "'fold_weight_transpose' must account for 22 places" in raised.value.rule
    assert raised.value.fact == "it fired 14 times and refused 1"
