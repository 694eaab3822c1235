"""Exports of encoders: what the bundle says, that its graph computes what PyTorch computes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.bundle import Bundle, read_bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.errors import CheckpointError, ExportError, ParityFailed
from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint, estimate
from edgekit.parity.encoder_check import encoder_parity
from edgekit.progress import SilentProgress
from tests.tiny_encoder import TEXTS, write_encoder


def export(checkpoint: Path, place: Path, dtype: str = "fp32", **options: Any) -> Bundle:
    settings = ExportOptions(dtype=dtype, calibration_sequences=4, calibration_length=24, **options)
    bundle_from_checkpoint(open_checkpoint(checkpoint), place, settings, progress=SilentProgress())
    return read_bundle(place, verify="full")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "bert": write_encoder(folder / "bert"),
        "mpnet": write_encoder(folder / "mpnet", "mpnet", pooling="cls", normalize=False),
    }


def test_the_manifest_of_an_encoder(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    bundle = export(checkpoints["bert"], tmp_path / "bundle")
    manifest = bundle.manifest
    assert manifest.kind == "encoder"
    assert manifest.draft is None
    assert manifest.encoder is not None
    assert (manifest.encoder.pooling, manifest.encoder.normalize) == ("mean", True)
    assert (manifest.encoder.dimensions, manifest.encoder.max_tokens) == (64, 40)
    assert [value["name"] for value in manifest.graph.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert manifest.graph.outputs == ({"name": "sentence_embedding", "dtype": "float32", "shape": ["batch_size", 64]},)
    assert (manifest.cache.kind, manifest.cache.bytes_per_token, manifest.tokens.pad) == ("none", 0, 0)
    assert not bundle.has("generation_config.json")
    recorded = {entry["name"] for entry in manifest.raw["provenance"]["checkpoint"]["files"]}
    assert {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"} <= recorded
    rules = {"fold_weight_transpose", "quantize_linear", "quantize_embedding", "attach_functions"}
    assert set(manifest.raw["rules"]) == rules
    assert manifest.raw["rules"]["fold_weight_transpose"]["fired"] == 6 * 2


CASES = [
    ("bert", "fp32", {}),
    ("bert", "fp32", {"form": "portable"}),
    ("bert", "int8", {}),
    ("bert", "int4", {"form": "portable"}),
    ("mpnet", "fp32", {}),
    ("mpnet", "fp16", {}),
    ("mpnet", "int4", {}),
]


@pytest.mark.parametrize(("model", "dtype", "options"), CASES)
def test_the_graph_computes_what_pytorch_computes(
    checkpoints: dict[str, Path], tmp_path: Path, model: str, dtype: str, options: dict[str, Any]
) -> None:
    bundle = export(checkpoints[model], tmp_path / "bundle", dtype, **options)
    report = encoder_parity(bundle, open_checkpoint(checkpoints[model]), texts=TEXTS, threads=1)
    modes = {stage.mode: [s for s in report.stages if s.mode == stage.mode] for stage in report.stages}
    assert [len(modes[mode]) for mode in ("alone", "padded", "runtime")] == [4, 4, 1]
    for weight in report.weights:
        assert weight.objection is None
    for stage in report.stages:
        assert stage.objection is None, stage
    assert report.cut == 1
    if dtype == "fp32":
        report.require()
        assert report.embeddings.max_abs_error < 1e-5
    quantised = {"int8": 8, "int4": 4}.get(dtype)
    if quantised is not None:
        table = options.get("form") != "portable"
        assert sorted({weight.bits for weight in report.weights}) == sorted({quantised, 8} if table else {quantised})
        assert len(report.weights) == 6 * 2 + table


@pytest.mark.parametrize("fault", ["weight", "norm"])
def test_parity_fails_where_the_graph_is_another(checkpoints: dict[str, Path], tmp_path: Path, fault: str) -> None:
    bundle = export(checkpoints["bert"], tmp_path / "bundle")
    graph = onnx.load(bundle.graph, load_external_data=False)
    if fault == "norm":
        norm = next(node for node in graph.graph.node if node.op_type == "LayerNormalization")
        next(each for each in norm.attribute if each.name == "epsilon").f = 0.3
    else:
        first, second = [
            node for node in graph.graph.node if "query" in "".join(node.input) and node.op_type == "MatMul"
        ]
        first.input[1], second.input[1] = second.input[1], first.input[1]
    onnx.save(graph, bundle.graph)
    report = encoder_parity(bundle, open_checkpoint(checkpoints["bert"]), texts=TEXTS, threads=1)
    with pytest.raises(ParityFailed, match=r"alone, hidden\.[01]"):
        report.require()


def test_a_shorter_limit_and_one_that_is_too_long(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    encoder = export(checkpoints["bert"], tmp_path / "bundle", max_context=12).manifest.encoder
    assert encoder is not None
    assert encoder.max_tokens == 12
    with pytest.raises(ExportError, match="97 tokens were asked for, the model takes 96"):
        export(checkpoints["bert"], tmp_path / "other", max_context=97)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"form": "tensorrt"}, "form must be one of"),
        ({"allowed_cost": 0.5}, "loss of a decoder"),
        ({"draft": "heads.safetensors"}, "draft heads propose tokens to a decoder"),
    ],
)
def test_what_is_for_decoders_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path, options: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ExportError, match=rule):
        export(checkpoints["bert"], tmp_path / "bundle", "int4", **options)
    assert not (tmp_path / "bundle").exists()


def test_a_checkpoint_that_does_not_say_how_it_pools_is_refused(tmp_path: Path) -> None:
    checkpoint = write_encoder(tmp_path / "checkpoint")
    (checkpoint / "modules.json").unlink()
    with pytest.raises(CheckpointError, match=r"no modules\.json"):
        export(checkpoint, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_kept_at_8_bits(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    bundle = export(checkpoints["bert"], tmp_path / "bundle", "int4", keep_8bit=("*.output.dense",))
    record = bundle.manifest.raw["quantization"]
    assert record["origin"] == {"rounded to 4 bits by GPTQ": 8, "rounded to 8 bits, scales by least squares": 5}


def test_gptq_knows_the_inputs_of_each_product(checkpoints: dict[str, Path]) -> None:
    import torch

    from edgekit.compress.encoder import calibration_passages, input_moments
    from edgekit.models.registry import encoder_from_checkpoint

    checkpoint = open_checkpoint(checkpoints["bert"])
    model, passages = encoder_from_checkpoint(checkpoint), calibration_passages(checkpoint, 3, 20)
    assert passages.shape == (3, 20)
    tokenizer = json.loads(checkpoint.tokenizer_files()["tokenizer.json"])["model"]["vocab"]
    assert set(passages[:, 0].tolist()) == {tokenizer["[CLS]"]}
    assert set(passages[:, -1].tolist()) == {tokenizer["[SEP]"]}
    name = "encoder.layer.1.attention.self.key.weight"
    found = input_moments(model, passages, [name], lambda count: None)
    inputs = model(passages, torch.ones_like(passages)).hidden[1].flatten(0, 1)
    np.testing.assert_allclose(found[name], inputs.T @ inputs / 60, rtol=1e-4, atol=1e-5)


def test_the_estimate_knows_an_encoder(checkpoints: dict[str, Path]) -> None:
    checkpoint = open_checkpoint(checkpoints["bert"])
    sizes = [estimate(checkpoint, ExportOptions(dtype=dtype)).bytes_on_disk for dtype in ("fp32", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)
