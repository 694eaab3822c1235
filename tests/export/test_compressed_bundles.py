"""Bundles of compressed checkpoints: they compute what the checkpoint stands for, and keep its numbers as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekit.bundle import Bundle, read_bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.checkpoint.compressed import CompressedCheckpoint
from edgekit.compress.saten.pieces import Base
from edgekit.errors import BundleError, ExportError
from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint
from edgekit.export.compressed_layers import compressed_layers
from edgekit.layers.compressed_linear import CompressedLinear
from edgekit.models.registry import model_from_checkpoint
from edgekit.parity.check import parity_of
from edgekit.parity.encoder_check import encoder_parity
from edgekit.parity.tolerance import WEIGHTS_PER_OUTPUT
from edgekit.progress import SilentProgress
from tests.compress.layerwise.small import compressed
from tests.parity.tiny_models import write_checkpoint
from tests.tiny_encoder import write_encoder

#: What is compressed, by a name: method and settings.
CASES: dict[str, dict[str, Any]] = {
    "augmented": {"bits_per_weight": 5.2, "allocate": True},
    "augmented-2-of-4": {"sparsity": "2:4", "bits_per_weight": 9.0},
    "saten": {"method": "saten", "bits_per_weight": 6.0},
    "saten-sparse": {"method": "saten", "bits_per_weight": 7.0, "sparsity": "unstructured:80%", "factors": "int8"},
    "svd-aware": {"method": "svd-aware", "bits_per_weight": 8.0},
    "tt": {"method": "tt", "bits_per_weight": 8.0},
    "faithful": {"method": "saten-faithful", "bits_per_weight": 10.0},
    "dense": {"method": "dense", "bits_per_weight": 4.8, "allocate": True},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """made(case): a tiny Llama compressed so."""
    folder = tmp_path_factory.mktemp("compressed")
    source = write_checkpoint(folder / "source", "llama", num_hidden_layers=2, intermediate_size=128)
    known: dict[str, CompressedCheckpoint] = {}

    def make(case: str) -> CompressedCheckpoint:
        if case not in known:
            compressed(source, folder / case, **CASES[case])
            opened = open_checkpoint(folder / case)
            assert isinstance(opened, CompressedCheckpoint)
            known[case] = opened
        return known[case]

    return make


def bundle(checkpoint: Any, folder: Path, dtype: str = "int8", form: str = "ort") -> Bundle:
    options = ExportOptions(dtype=dtype, form=form)
    return read_bundle(bundle_from_checkpoint(checkpoint, folder, options, progress=SilentProgress()))


@pytest.mark.parametrize("case", CASES)
def test_a_bundle_computes_what_the_checkpoint_stands_for(case: str, made: Any, tmp_path: Path) -> None:
    checkpoint = made(case)
    report = parity_of(bundle(checkpoint, tmp_path / "bundle"), checkpoint, tokens=8)
    assert report.passed, report
    exact = {check.name: check.relative_error for check in report.weights if check.name in checkpoint.records}
    assert exact.keys() == checkpoint.records.keys()
    assert max(exact.values()) < (5e-4 if case in ("tt", "faithful") else 1e-6)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("form", ["ort", "portable"])
@pytest.mark.parametrize("case", ["saten-sparse", "faithful"])
def test_factors_alone_go_into_every_dtype(case: str, form: str, dtype: str, made: Any, tmp_path: Path) -> None:
    checkpoint = made(case)
    report = parity_of(bundle(checkpoint, tmp_path / "bundle", dtype, form), checkpoint, tokens=8)
    assert report.passed, report


def test_codes_factors_and_values_are_the_stored_bytes(made: Any, tmp_path: Path) -> None:
    checkpoint = made("augmented-2-of-4")
    found = bundle(checkpoint, tmp_path / "bundle")
    model = onnx.load(found.graph)
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    name = "model.layers.1.mlp.down_proj"
    arrays = {key.partition(".")[2]: array for key, array in checkpoint.matrix(f"{name}.weight").arrays().items()}
    stored = {key: array.tobytes() for key, array in arrays.items()}
    words = constants[f"{name}.positions"].tobytes()
    assert words[: len(stored["places"])] == stored["places"]
    assert constants[f"{name}.values"].tobytes()[: len(stored["value_codes"])] == stored["value_codes"]
    # The base's bits are in another order, scales [tile of 16 outputs, block, row] for [output, block].
    quantized = checkpoint.matrix(f"{name}.weight").pieces[0].quantized
    ordered = arrays["scales"].reshape(-1, 16, quantized.codes.shape[1]).transpose(0, 2, 1)
    assert constants[f"{name}.base_scales"].dtype == np.float16
    np.testing.assert_array_equal(constants[f"{name}.base_scales"], ordered.reshape(-1))
    set_bits = [np.unpackbits(data.view(np.uint8)).sum() for data in (constants[f"{name}.base"], arrays["codes"])]
    assert set_bits[0] == set_bits[1]
    assert constants[f"{name}.base"].nbytes == arrays["codes"].nbytes


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("case", ["augmented", "dense"])
def test_bases_go_into_every_dtype_of_the_ort_form(case: str, dtype: str, made: Any, tmp_path: Path) -> None:
    checkpoint = made(case)
    found = bundle(checkpoint, tmp_path / "bundle", dtype)
    report = parity_of(found, checkpoint, tokens=8)
    assert report.passed, report
    assert found.manifest.raw["rules"]["base_in_operator"]["fired"] == 14
    assert found.manifest.raw["quantization"] is None


def test_products_stay_where_they_are_asked_for(made: Any, tmp_path: Path) -> None:
    checkpoint = made("augmented")
    options = ExportOptions(dtype="int8", base="products")
    path = bundle_from_checkpoint(checkpoint, tmp_path / "bundle", options, progress=SilentProgress())
    found = read_bundle(path)
    assert parity_of(found, checkpoint, tokens=8).passed
    outcome = found.manifest.raw["rules"]["base_in_operator"]
    assert outcome["fired"] == 0
    assert {refusal["reason"] for refusal in outcome["refused"]} == {"products were asked for"}
    assert found.manifest.raw["quantization"]["origin"]["as compressed"] == 14


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("block", [16, 192, 384])
def test_blocks_of_any_size_are_products(bits: int, block: int, tmp_path: Path) -> None:
    """ONNX Runtime's MatMulNBits loads with powers of two alone."""
    source = write_checkpoint(tmp_path / "source", "llama", num_hidden_layers=2, intermediate_size=384)
    form: dict[str, Any] = {"method": "dense", "base_bits": (bits,), "bits_per_weight": bits + 0.5}
    compressed(source, tmp_path / "plan.json", plan_only=True, **form)
    plan = json.loads((tmp_path / "plan.json").read_text())
    lines = [line for line in plan["matrices"] if line["matrix"].endswith("down_proj.weight")]
    for line in lines:
        line |= {"base_blocks": [block], "bytes": 2 * line["bytes"]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    compressed(source, tmp_path / "small", plan=tmp_path / "plan.json")
    checkpoint, names = open_checkpoint(tmp_path / "small"), [line["matrix"] for line in lines]
    assert isinstance(checkpoint, CompressedCheckpoint)
    bases = [piece for name in names for piece in checkpoint.matrix(name).pieces if isinstance(piece, Base)]
    assert [base.quantized.codes.shape[2] for base in bases] == [block, block]
    options = ExportOptions(dtype="int8", base="products")
    path = bundle_from_checkpoint(checkpoint, tmp_path / "bundle", options, progress=SilentProgress())
    report = parity_of(read_bundle(path), checkpoint, tokens=8)
    assert report.passed, report
    assert max(check.relative_error for check in report.weights if check.name in names) < 1e-6


def test_a_choice_for_bases_that_are_not_there_is_refused(tmp_path: Path) -> None:
    source = open_checkpoint(write_checkpoint(tmp_path / "source", "llama", num_hidden_layers=2))
    with pytest.raises(ExportError, match="is not compressed"):
        compressed_layers(source, ExportOptions(dtype="int8", base="operator"))
    with pytest.raises(ExportError, match="base must be one of auto, operator, products"):
        ExportOptions(dtype="int8", base="both")


def test_a_compressed_layer_is_the_dense_one(made: Any) -> None:
    checkpoint = made("augmented")
    layers = compressed_layers(checkpoint, ExportOptions(dtype="int8"))
    model = model_from_checkpoint(checkpoint)
    constants, seen = layers.constants(), 0
    dense = {name: model.get_parameter(name).clone() for name in layers.corrections}
    layers.place(model)
    for name in layers.corrections:
        module = model.get_submodule(name.removesuffix(".weight"))
        assert isinstance(module, CompressedLinear)
        for parameter in dict(module.named_parameters(recurse=False)):
            key = f"{name.removesuffix('.weight')}.{parameter}"
            value = torch.from_numpy(np.array(constants[key].load()))
            setattr(module, parameter, nn.Parameter(value, requires_grad=False))
        x = torch.from_numpy(np.random.default_rng(seen).normal(size=(2, 3, dense[name].shape[1])).astype(np.float32))
        torch.testing.assert_close(module(x), x @ dense[name].T, rtol=1e-4, atol=1e-5)
        seen += 1
    assert seen > 3


@pytest.mark.parametrize("name", ["t6", "llama_tpa", "gemma3_text"])
def test_other_decoders_compute_what_their_checkpoints_stand_for(name: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", name)
    # Without codes and in float32, since random models of factors do not bear activations of 8 bits.
    compressed(source, tmp_path / "small", method="saten", bits_per_weight=8.0)
    checkpoint = open_checkpoint(tmp_path / "small")
    report = parity_of(bundle(checkpoint, tmp_path / "bundle", "fp32"), checkpoint, tokens=8)
    assert report.passed, report


@pytest.mark.parametrize("case", ["bert", "mpnet"])
def test_an_encoder_computes_what_its_checkpoint_stands_for(case: str, tmp_path: Path) -> None:
    source = write_encoder(tmp_path / "source", case)
    compressed(source, tmp_path / "small", embeddings="int8", bits_per_weight=6.0)
    checkpoint = open_checkpoint(tmp_path / "small")
    found = bundle(checkpoint, tmp_path / "bundle")
    report = encoder_parity(found, checkpoint, texts=["a small lamp", "the boat came home"])
    assert report.passed, report
    assert [use.name for use in found.manifest.operators] == ["TTSparseLinear"]


@pytest.mark.parametrize("form", ["ort", "portable"])
@pytest.mark.parametrize("method", ["saten", "saten-faithful", "tt"])
def test_an_encoder_of_factors_alone_leaves_nothing_to_round(method: str, form: str, tmp_path: Path) -> None:
    source = write_encoder(tmp_path / "source", "bert")
    compressed(source, tmp_path / "small", method=method, bits_per_weight=10.0)
    checkpoint = open_checkpoint(tmp_path / "small")
    found = bundle(checkpoint, tmp_path / "bundle", form=form)
    report = encoder_parity(found, checkpoint, texts=["a small lamp", "the boat came home"])
    assert report.passed, report


def test_codes_that_a_bundle_does_not_hold_are_missed(tmp_path: Path) -> None:
    """An encoder of codes alone, whose bundle says int8 and holds the original's numbers."""
    source = write_encoder(tmp_path / "source", "bert")
    compressed(source, tmp_path / "small", method="dense", bits_per_weight=4.5)
    found = bundle(open_checkpoint(source), tmp_path / "bundle", "fp32")
    lying = replace(found, manifest=replace(found.manifest, dtype="int8"))
    with pytest.raises(BundleError, match="0 of its matrices are quantised"):
        encoder_parity(lying, open_checkpoint(tmp_path / "small"), texts=["a small lamp"])


def test_codes_without_zero_points_go_into_every_form_with_blocks(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", "llama", num_hidden_layers=2, intermediate_size=128)
    compressed(source, tmp_path / "small", symmetric=True, base_bits=(4,), bits_per_weight=5.5, embeddings="int8")
    checkpoint = open_checkpoint(tmp_path / "small")
    portable = bundle(checkpoint, tmp_path / "portable", form="portable")
    assert parity_of(portable, checkpoint, tokens=8).passed
    rules = bundle(checkpoint, tmp_path / "tensorrt", form="tensorrt").manifest.raw["rules"]
    assert rules["quantize_linear_qdq"] == {"fired": 15, "refused": []}
    assert rules["base_in_operator"]["fired"] == 0
    assert {each["reason"] for each in rules["base_in_operator"]["refused"]} == {"TensorRT reads its codes"}


SYMMETRIC: dict[str, Any] = {"symmetric": True, "base_bits": (4,), "bits_per_weight": 5.5, "embeddings": "int8"}


@pytest.mark.parametrize(
    ("form", "dtype", "settings"),
    [
        ("tensorrt", "fp16", {"method": "dense", "bits_per_weight": 3.3, "base_bits": (3,)}),
        ("tensorrt", "int8", {"method": "dense", "bits_per_weight": 3.25, "base_bits": (2, 3), "symmetric": True}),
        ("tensorrt", "int4", {"bits_per_weight": 5.2, "allocate": True}),
        ("tensorrt", "fp16", SYMMETRIC),
        ("jetpack6", "int8", SYMMETRIC),
        ("jetpack6", "fp16", {"bits_per_weight": 5.2, "allocate": True}),
    ],
)
def test_bases_that_tensorrt_does_not_read_are_plugins(
    form: str, dtype: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    source = write_checkpoint(tmp_path / "source", "llama", num_hidden_layers=2, intermediate_size=128)
    compressed(source, tmp_path / "small", **settings)
    checkpoint = open_checkpoint(tmp_path / "small")
    assert isinstance(checkpoint, CompressedCheckpoint)
    found = bundle(checkpoint, tmp_path / "bundle", dtype, form)
    outcome = found.manifest.raw["rules"]["base_in_operator"]
    names = sorted(name for name in checkpoint.records if ".layers." in name)
    assert (outcome["fired"], outcome["refused"], outcome["matrices"]) == (14, [], names)
    nodes = [node for node in onnx.load(found.graph).graph.node if node.op_type == "TTSparseLinear"]
    assert len(nodes) == 14
    assert all(each.i in (2, 3, 4) for node in nodes for each in node.attribute if each.name == "base_bits")
    # On the CPU, where ONNX Runtime makes some of these nodes' float16 operands float32.
    report = parity_of(found, checkpoint, tokens=8)
    assert report.failure is None
    if (form, dtype) == ("jetpack6", "int8"):
        # Codes with a scale per output: an embedding stored in blocks is rounded again, and held to what that costs.
        (table,) = [check for check in report.weights if check.name == "model.embed_tokens.weight"]
        assert table.relative_error > 0
        assert table.tolerance == WEIGHTS_PER_OUTPUT[8]
    # A plugin of its own, without a body that would win over it, where the parser prefers bodies.
    assert bool(onnx.load(found.graph, load_external_data=False).functions) == (form == "tensorrt")


@pytest.mark.parametrize(("form", "fact"), [("tensorrt", "are others"), ("jetpack6", "14 matrices have a base")])
def test_products_that_tensorrt_has_not_are_refused(form: str, fact: str, made: Any, tmp_path: Path) -> None:
    options = ExportOptions(dtype="int8", form=form, base="products")
    with pytest.raises(ExportError, match=fact):
        bundle_from_checkpoint(made("augmented"), tmp_path / "bundle", options, progress=SilentProgress())
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("form", "step"), [("tensorrt", "2, 3 or 4, which plugins read"), ("portable", "--symmetric")])
def test_codes_of_8_bits_that_a_form_has_not_are_refused(form: str, step: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", "llama", num_hidden_layers=2, intermediate_size=128)
    compressed(source, tmp_path / "small", method="dense", base_bits=(8,), bits_per_weight=8.5)
    with pytest.raises(ExportError, match=step) as caught:
        bundle(open_checkpoint(tmp_path / "small"), tmp_path / "bundle", form=form)
    assert "--base products" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "form", "fact"),
    [
        ("fp32", "portable", "a base of few bits"),
        ("fp16", "portable", "a base of few bits"),
    ],
)
def test_what_has_no_place_for_codes_is_refused(dtype: str, form: str, fact: str, made: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=fact):
        bundle(made("augmented"), tmp_path / "bundle", dtype, form)
    assert not (tmp_path / "bundle").exists()


def test_the_bundle_says_where_its_matrices_come_from(made: Any, tmp_path: Path) -> None:
    found = bundle(made("augmented"), tmp_path / "bundle")
    outcome = found.manifest.raw["rules"]["base_in_operator"]
    assert (outcome["fired"], outcome["refused"], len(outcome["matrices"])) == (14, [], 14)
    assert "compression" not in json.loads((tmp_path / "bundle" / "config.json").read_text())
