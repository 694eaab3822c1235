"""Quantised forms against the PyTorch model whose matrices are what the codes stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.compress.blockwise import quantize_blocks
from edgekit.compress.quantizer import QuantizationSettings, QuantizedModel, carried_over
from edgekit.compress.units import EMBEDDING, is_matrix
from edgekit.contract import FORM_ORT, FORM_PORTABLE
from edgekit.export.trace import traced_from_config
from edgekit.export.write import DATA_FILE, MODEL_FILE, check_model
from edgekit.rewrite.rules import quantize_linear
from tests.checkpoint.conftest import TinyGguf, make_weights, write_gguf
from tests.rewrite.tiny_graphs import CONTEXT, Form, Forms, Replaced, Run, bind, torch_model, torch_run, written


def matrices_of(checkpoint: Checkpoint) -> list[str]:
    return [name for name in checkpoint.names() if is_matrix(name, checkpoint.spec(name).shape)]


def rounded(checkpoint: Checkpoint, bits: int, symmetric: bool) -> QuantizedModel:
    """Every matrix with these bits, but for the head and the embedding, which have 8."""
    result = QuantizedModel(QuantizationSettings(bits, symmetric=symmetric))
    for name in matrices_of(checkpoint):
        width = 8 if name in (EMBEDDING, "lm_head.weight") else bits
        result.matrices[name] = quantize_blocks(checkpoint.array(name), width, 32, symmetric=symmetric)
    return result


def values_of(quantized: QuantizedModel) -> dict[str, np.ndarray]:
    return {name: matrix.dequantized() for name, matrix in quantized.matrices.items()}


def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations stay float32 inside the kernel, so that the comparison can be tight."""
    monkeypatch.setattr(quantize_linear, "ACCURACY_INT8", 1)


def compare(form: Form, checkpoint: Checkpoint | Replaced, tolerance: float, optimized: bool = True) -> None:
    """Logits of a prompt and three single tokens, within a share of their spread."""
    ids = np.random.default_rng(5).integers(3, checkpoint.config["vocab_size"], (1, 12))
    mask = np.ones_like(ids)
    expected, _ = torch_run(torch_model(checkpoint), ids, mask)
    run = Run(form, optimized=optimized)
    parts = [run(ids[:, :9], mask[:, :9])]
    parts += [run(ids[:, i : i + 1], mask[:, : i + 1]) for i in range(9, 12)]
    error = np.abs(np.concatenate(parts, axis=1) - expected).max() / expected.std()
    assert error < tolerance


@pytest.mark.parametrize("name", ["llama", "llama-untied", "qwen2"])
@pytest.mark.parametrize("bits", [4, 8])
def test_ort(forms: Forms, name: str, bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = forms.checkpoint(name)
    quantized = rounded(checkpoint, bits, symmetric=False)
    reference = Replaced(checkpoint, values_of(quantized))
    exact_products(monkeypatch)
    form = written(forms.bound(name), FORM_ORT, tmp_path, quantized=quantized)
    compare(form, reference, 1e-3)
    fired = {rule: form.outcomes[rule].fired for rule in ("quantize_linear", "quantize_embedding")}
    assert fired == {"quantize_linear": 2 * 4 + 1, "quantize_embedding": 1}
    assert "MatMul" not in {node.op_type for node in onnx.load(form.folder / MODEL_FILE).graph.node}


def test_ort_as_it_is_shipped(forms: Forms, tmp_path: Path) -> None:
    """With activations rounded to int8 inside the kernel."""
    checkpoint = forms.checkpoint("llama")
    quantized = rounded(checkpoint, 4, symmetric=False)
    form = written(forms.bound("llama"), FORM_ORT, tmp_path, quantized=quantized)
    compare(form, Replaced(checkpoint, values_of(quantized)), 0.2)
    levels = {
        attribute.i
        for node in onnx.load(form.folder / MODEL_FILE).graph.node
        for attribute in node.attribute
        if attribute.name == "accuracy_level"
    }
    assert levels == {4}


@pytest.mark.parametrize("name", ["llama", "llama-untied"])
@pytest.mark.parametrize("bits", [4, 8])
def test_portable(forms: Forms, name: str, bits: int, tmp_path: Path) -> None:
    checkpoint = forms.checkpoint(name)
    quantized = rounded(checkpoint, bits, symmetric=True)
    form = written(forms.bound(name), FORM_PORTABLE, tmp_path, quantized=quantized)
    check_model(tmp_path / MODEL_FILE)
    model = onnx.load(tmp_path / MODEL_FILE, load_external_data=False)
    assert {node.domain for node in model.graph.node} == {""}
    assert sum(node.op_type == "DequantizeLinear" for node in model.graph.node) == 2 * 7 + 1
    # The embedding is looked up unquantised: the head alone reads the codes.
    values = values_of(quantized)
    table = values.pop(EMBEDDING)
    reference = torch_model(Replaced(checkpoint, values))
    ids = np.random.default_rng(5).integers(3, checkpoint.config["vocab_size"], (1, 9))
    mask = np.ones_like(ids)
    if name == "llama":
        head = reference.model.norm.register_forward_hook(lambda module, inputs, output: kept.append(output.numpy()))
        kept: list[np.ndarray] = []
        torch_run(reference, ids, mask)
        head.remove()
        expected = kept[0] @ table.T
    else:
        expected, _ = torch_run(reference, ids, mask)
    logits = Run(form, optimized=False)(ids, mask)
    assert np.abs(logits - expected).max() < 1e-3 * expected.std()
    # ONNX Runtime's own fusion rounds activations, as the ort form does.
    assert np.abs(Run(form)(ids, mask) - expected).max() < 0.2 * expected.std()


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_integers_that_are_carried_over(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make_weights("llama")
    types = {name: "Q8_0" if name == EMBEDDING else kind for name, value in weights.items() if value.ndim == 2}
    checkpoint = open_checkpoint(write_gguf(tmp_path / "tiny.gguf", TinyGguf(weights=weights, types=types)))
    settings = QuantizationSettings(8 if kind == "Q8_0" else 4)
    quantized = QuantizedModel(settings)
    for name in matrices_of(checkpoint):
        carried = carried_over(checkpoint, name, settings)
        assert carried is not None
        quantized.matrices[name] = carried
    values = {}
    for name, matrix in quantized.matrices.items():
        if matrix.offsets is not None:  # as the graph holds them: rounded, one column for each block
            extended = matrix.with_offset_columns().dequantized()
            values[name] = extended[:, : matrix.inputs] + extended[:, matrix.inputs :].repeat(32, axis=1)
            assert np.abs(values[name] - checkpoint.array(name)).max() < 0.1 * np.abs(matrix.scales).max()
    traced = traced_from_config(checkpoint.config, "float32", CONTEXT)
    bind(traced, checkpoint)
    exact_products(monkeypatch)
    form = written(traced, FORM_ORT, tmp_path, quantized=quantized)
    sums = sum(node.op_type == "ReduceSum" for node in onnx.load(tmp_path / MODEL_FILE).graph.node)
    assert sums == 1 + (2 * 4 if kind == "Q4_1" else 0)  # the first is of the attention mask
    compare(form, Replaced(checkpoint, values), 1e-3)


def test_a_tied_head_and_its_embedding_are_stored_once(forms: Forms, tmp_path: Path) -> None:
    quantized = rounded(forms.checkpoint("llama"), 8, symmetric=False)
    written(forms.bound("llama"), FORM_ORT, tmp_path, quantized=quantized)
    model = onnx.load(tmp_path / MODEL_FILE, load_external_data=False)
    places = {
        value.name: {entry.key: entry.value for entry in value.external_data} for value in model.graph.initializer
    }
    assert places["lm_head.codes"] == places["model.embed_tokens.codes"] != {}
    assert places["lm_head.scales"] == places["model.embed_tokens.scales"] != {}
    floats = sum(4 * forms.checkpoint("llama").array(name).size for name in quantized.matrices)
    assert (tmp_path / DATA_FILE).stat().st_size < 0.5 * floats
