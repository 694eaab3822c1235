"""Attention over a cache that TensorScatter writes in place, under masks that are longer than the tokens."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekit import contract
from edgekit.contract import FORM_PORTABLE, FORM_TENSORRT
from edgekit.rewrite.pipelines import rewrite
from edgekit.rewrite.rule import Context
from tests.rewrite.tiny_graphs import CONTEXT, MODELS, Forms, Run

LENGTH = 12


def ids_of(forms: Forms, name: str, batch: int) -> np.ndarray:
    vocabulary = forms.checkpoint(name).config["vocab_size"]
    return np.random.default_rng(0).integers(0, vocabulary, (batch, LENGTH))


@pytest.mark.parametrize("columns", [LENGTH, LENGTH + 1, CONTEXT])
@pytest.mark.parametrize("name", MODELS)
def test_slots_after_the_tokens_change_nothing(forms: Forms, name: str, columns: int) -> None:
    """Against the form whose cache grows, with one row padded on the left; a prompt, a step, and two tokens."""
    ids = ids_of(forms, name, 2)
    mask = np.ones_like(ids)
    mask[1, :3] = 0
    grows, in_place = (Run(forms.form(name, form), batch=2) for form in (FORM_PORTABLE, FORM_TENSORRT))
    start = 0
    for end in (6, 7, 9, LENGTH):
        longer = np.full((2, max(columns, end)), -1)
        longer[:, :end] = mask[:, :end]
        piece = np.ascontiguousarray(ids[:, start:end])
        expected = grows(piece, np.ascontiguousarray(mask[:, :end]))
        found = in_place(piece, longer)
        real = mask[:, start:end] != 0
        np.testing.assert_allclose(found[real], expected[real], atol=1e-5)
        start = end


@pytest.mark.parametrize("capacity", [None, 32])
def test_past_and_present_are_buffers_of_one_capacity(forms: Forms, capacity: int | None) -> None:
    traced = forms.bound("llama")
    outcomes = rewrite(traced.graph, FORM_TENSORRT, Context(traced.geometry, capacity=capacity))
    layers = traced.geometry.layers
    assert outcomes["lower_attention_in_place"].fired == layers
    nodes = [node for node in traced.graph.nodes if node.op == "TensorScatter"]
    assert len(nodes) == 2 * layers
    for node in nodes:
        past, present = node.inputs[0], node.outputs[0]
        assert past in traced.graph.inputs
        assert present in traced.graph.outputs
        assert past.shape[2] == present.shape[2] == (capacity or contract.AXIS_CAPACITY)
    assert not any(node.op == "Concat" for node in traced.graph.nodes)
    assert traced.graph.opset == 24
    mask = next(tensor for tensor in traced.graph.inputs if tensor.name == contract.ATTENTION_MASK)
    assert mask.shape == [contract.AXIS_BATCH, contract.AXIS_SLOTS]


def test_it_is_valid_in_the_opset_that_has_tensor_scatter(forms: Forms) -> None:
    folder = forms.form("llama", FORM_TENSORRT).folder
    onnx.checker.check_model(str(folder / "model.onnx"))
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for node in model.graph.node:
        onnx.defs.get_schema(node.op_type, 24)
