"""Quantised weights in the forms for TensorRT: as its documentation asks for them, and right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.bundle import Bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.compress.blockwise import SMALLEST_SCALE, quantize_blocks
from edgekit.errors import ExportError
from edgekit.export.idle_options import idle_options
from edgekit.export.options import ExportOptions
from edgekit.parity.check import parity_of
from edgekit.parity.dequantized import stored_matrices
from tests.parity.tiny_models import export, write_checkpoint

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
Made = Callable[[str, str], Bundle]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("tensorrt_weights")
    done: dict[tuple[str, str], Bundle] = {}

    def make(name: str, dtype: str, form: str = "tensorrt") -> Bundle:
        place = folder / name
        checkpoint = open_checkpoint(place if place.is_dir() else write_checkpoint(place, name, **SIZES))
        if (name, dtype) not in done:
            done[name, dtype] = export(checkpoint, folder / f"{name}-{dtype}", form, dtype)
        return done[name, dtype]

    return make


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "llama-untied"])
def test_codes_and_scales(made: Made, name: str, dtype: str) -> None:
    bundle = made(name, dtype)
    model = onnx.load(bundle.graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(nodes) == 2 * 7 + 1
    kinds = set()
    for node in nodes:
        codes, scales = (onnx.numpy_helper.to_array(constants[name]) for name in node.input)
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        # "INT4 quantization requires per-block scales. The supported block sizes are {64, 128}"; int8 has none.
        assert attributes.get("block_size", 0) == (
            64 if constants[node.input[0]].data_type == onnx.TensorProto.INT4 else 0
        )
        assert scales.dtype == np.float16
        assert (scales > 0).all()  # TensorRT: "Scale coefficients must all be positive"
        outputs = codes.shape[attributes["axis"]] if "block_size" not in attributes else codes.shape[1]
        assert scales.shape == ((codes.shape[0] // 64, outputs) if "block_size" in attributes else (outputs,))
        kinds.add(constants[node.input[0]].data_type)
    assert onnx.TensorProto.INT8 in kinds
    assert (bundle.manifest.cache.dtype, bundle.manifest.dtype) == ("float16", dtype)
    record = bundle.manifest.raw["quantization"]
    assert (record["block_size"], record["scales_at_8_bits"]) == ({"int8": None, "int4": 64}[dtype], "per output")


def test_a_tied_head_and_the_embedding_read_the_same_codes(made: Made) -> None:
    model = onnx.load(made("llama", "int8").graph, load_external_data=False)
    [table] = [node for node in model.graph.node if node.input[0] == "model.embed_tokens.codes"]
    readers = sorted(node.op_type for node in model.graph.node if table.output[0] in node.input)
    assert readers == ["Gather", "Transpose"]
    vocabulary = made("llama", "int8").manifest.model.vocab_size
    assert not [
        t.name
        for t in model.graph.initializer
        if list(t.dims) == [vocabulary, 64] and t.data_type == onnx.TensorProto.FLOAT16
    ]


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "llama-untied", "gemma3_text"])
def test_parity(made: Made, name: str, dtype: str) -> None:
    bundle = made(name, dtype)
    checkpoint = open_checkpoint(bundle.path.parent / name)
    report = parity_of(bundle, checkpoint, prompts=("hello world, a text",), tokens=8, threads=1)
    assert report.failure is None
    assert (report.reference, len(report.weights)) == ("dequantized", len(stored_matrices(
        onnx.load(bundle.graph, load_external_data=False), bundle.path, checkpoint
    )))  # fmt: skip


def test_int8_is_for_jetpack_6_too(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "checkpoint", "llama", **SIZES))
    bundle = export(checkpoint, tmp_path / "bundle", "jetpack6", "int8")
    assert bundle.manifest.raw["graph"]["opset"] == 20
    report = parity_of(bundle, checkpoint, prompts=("hello world",), tokens=4, threads=1)
    assert report.failure is None


@pytest.mark.parametrize(("bits", "block"), [(8, 96), (4, 32)])
def test_positive_scales(bits: int, block: int) -> None:
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((40, 96)).astype(np.float32) * 0.1
    weight[3], weight[4], weight[5] = 0, np.abs(weight[4]), -np.abs(weight[5])
    found = quantize_blocks(weight, bits, block, symmetric=True, positive=True)
    assert (found.scales >= SMALLEST_SCALE).all()
    assert (found.zero_points == 2 ** (bits - 1)).all()
    # No weight is further from its value than half a step, or, clipped at 4 bits, than the range that is tried.
    steps = np.repeat(found.scales, block, axis=1)
    error = np.abs(found.dequantized() - weight)
    assert (error <= (0.5001 if bits == 8 else 2.6) * steps).all()
    assert np.array_equal(found.dequantized()[3], np.zeros(96))
    signed = quantize_blocks(weight, bits, block, symmetric=True)
    assert np.square(error).sum() < 1.35 * np.square(signed.dequantized() - weight).sum()


@pytest.mark.parametrize("block", [16, 32])
def test_blocks_that_tensorrt_does_not_take(block: int) -> None:
    with pytest.raises(ExportError, match="block_size must be one of 64, 128"):
        ExportOptions("int4", form="tensorrt", block_size=block)


def test_defaults_for_tensorrt() -> None:
    for form in ("tensorrt", "jetpack6"):
        settings = ExportOptions("int4", form=form).quantization
        assert settings is not None
        assert (settings.block, settings.symmetric, settings.for_tensorrt) == (64, True, True)
        assert {dtype: ExportOptions(dtype, form=form).activations for dtype in ("fp32", "fp16", "int8", "int4")} == {
            "fp32": "float32", "fp16": "float16", "int8": "float16", "int4": "float16",
        }  # fmt: skip
    other = ExportOptions("int4").quantization
    assert other is not None
    assert (other.block, other.for_tensorrt) == (32, False)


def test_options_without_effect() -> None:
    assert idle_options("int8", ["block_size"], "tensorrt") == ["block_size"]
    assert idle_options("int4", ["block_size", "carry_over"], "jetpack6") == ["carry_over"]
    assert idle_options("int4", ["block_size", "carry_over"], "ort") == []
    assert idle_options("int8", ["base"], "tensorrt") == idle_options("fp16", ["base"], "jetpack6") == []
    assert idle_options("int8", ["base"], "portable") == ["base"]
