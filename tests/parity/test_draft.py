"""Draft heads in `edgekit parity`: bundles with them pass, and what is wrong with them is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgekit.bundle import Bundle, read_bundle
from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.cli.parity import command
from edgekit.draft.head_file import read_heads, write_heads
from edgekit.errors import BundleError, CheckpointError
from edgekit.files import sha256_of
from edgekit.parity.check import parity_of
from edgekit.parity.origin import heads_of
from edgekit.parity.report import DraftAgreement, ParityReport
from edgekit.parity.tolerance import DRAFT, GRAPH
from edgekit.recipe.fingerprint import rule_counts
from tests.export.tiny_heads import export_with_heads, tiny_heads, written_heads
from tests.parity.tiny_models import export, write_checkpoint

PROMPTS = ("hello world, a text", "x = 12345")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("c") / "llama"
    return open_checkpoint(write_checkpoint(folder, "llama", num_hidden_layers=2))


@pytest.fixture(scope="module")
def heads(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_heads(tmp_path_factory.mktemp("h") / "heads.safetensors", checkpoint, feature_layers=(1, 2))


Made = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def made(checkpoint: Checkpoint, heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    found: dict[str, Bundle] = {}

    def make(dtype: str) -> Bundle:
        if dtype not in found:
            # All four components in fp32, and two in int8, which noise chooses.
            components = {"draft_components": 4} if dtype == "fp32" else {}
            folder = tmp_path_factory.mktemp(dtype) / "bundle"
            found[dtype] = export_with_heads(checkpoint, folder, heads, "ort", dtype, **components)
        return found[dtype]

    return make


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Without heads."""
    return export(checkpoint, tmp_path_factory.mktemp("plain") / "bundle")


def compared(bundle: Bundle, checkpoint: Checkpoint) -> ParityReport:
    return parity_of(bundle, checkpoint, prompts=PROMPTS, tokens=8, threads=1)


def test_in_float32_nothing_differs(made: Made, checkpoint: Checkpoint) -> None:
    report = compared(made("fp32"), checkpoint)
    assert report.failure is None
    assert report.draft is not None
    assert report.draft.variation_max < 1e-5
    assert report.draft.kl_mean < 1e-7
    assert report.draft.weights_variation < 1e-5
    assert report.draft.top1 > 0.999
    # 32 places of each text, or as many as it has.
    assert 20 < report.draft.positions <= 64
    features = [stage for stage in report.stages if stage.name == "features"]
    assert {stage.mode for stage in features} == {"prefill", "chunked", "decode", "runtime"}
    assert max(stage.difference.relative_error for stage in features) < 1e-5


def test_decoder_and_draft_graph_are_closed(made: Made, checkpoint: Checkpoint, ort_sessions: list[Any]) -> None:
    compared(made("fp32"), checkpoint)
    assert [each._session is None for each in ort_sessions] == [True, True]


def test_rounded_heads_are_near(made: Made, checkpoint: Checkpoint) -> None:
    report = compared(made("int8"), checkpoint)
    assert report.draft is not None
    assert report.draft.objection is None
    assert 1e-4 < report.draft.variation_mean < DRAFT["int8"].tokens
    assert report.to_dict()["draft"]["passed"] is True
    exact = [s for s in report.stages if s.name == "features" and s.mode != "runtime"]
    assert max(stage.difference.relative_error for stage in exact) < 1e-5


def test_a_bundle_without_heads_has_no_such_stage(plain: Bundle, checkpoint: Checkpoint) -> None:
    report = compared(plain, checkpoint)
    assert report.draft is None
    assert report.to_dict()["draft"] is None
    assert "features" not in {stage.name for stage in report.stages}


def copy(bundle: Bundle, destination: Path) -> Bundle:
    shutil.copytree(bundle.path, destination)
    return read_bundle(destination)


def with_file(bundle: Bundle, name: str, content: bytes) -> Bundle:
    """The bundle with another content of a file, which its manifest knows."""
    (bundle.path / name).write_bytes(content)
    place = bundle.path / "manifest.json"
    manifest = json.loads(place.read_text())
    for entry in manifest["files"]:
        if entry["name"] == name:
            entry.update(bytes=len(content), sha256=sha256_of(bundle.path / name))
    place.write_text(json.dumps(manifest))
    return read_bundle(bundle.path, verify="full")


def test_one_wrong_weight_of_the_heads_fails(made: Made, checkpoint: Checkpoint, tmp_path: Path) -> None:
    bundle = copy(made("fp32"), tmp_path / "bundle")
    data = bytearray((bundle.path / "draft.onnx.data").read_bytes())
    model = onnx.load(bundle.path / "draft.onnx", load_external_data=False)
    project = next(tensor for tensor in model.graph.initializer if tensor.name == "project.weight_t")
    place = int(next(entry.value for entry in project.external_data if entry.key == "offset"))
    data[place : place + 4] = np.float32(10).tobytes()
    report = compared(with_file(bundle, "draft.onnx.data", bytes(data)), checkpoint)
    assert report.failure is not None
    assert report.failure.startswith("draft heads: the mean total variation of drafted tokens is")
    assert report.to_dict()["draft"]["passed"] is False


def test_features_of_another_layer_fail(made: Made, checkpoint: Checkpoint, tmp_path: Path) -> None:
    bundle = copy(made("fp32"), tmp_path / "bundle")
    model = onnx.load(bundle.graph, load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "Slice" and node.input[0] == "hidden.1":
            node.input[0] = "hidden.0"
    report = compared(with_file(bundle, "model.onnx", model.SerializeToString()), checkpoint)
    assert report.failure is not None
    assert report.failure.startswith("prefill, features: cosine")


def test_another_vocabulary_is_refused(made: Made, checkpoint: Checkpoint, tmp_path: Path) -> None:
    bundle = copy(made("fp32"), tmp_path / "bundle")
    path = tmp_path / "vocabulary.npy"
    np.save(path, np.arange(90, dtype=np.int32))
    with pytest.raises(BundleError, match="trained for"):
        compared(with_file(bundle, "draft_vocabulary.npy", path.read_bytes()), checkpoint)
    with pytest.raises(BundleError, match="a draft vocabulary is a list of tokens"):
        compared(with_file(bundle, "draft_vocabulary.npy", path.read_bytes()[:-1]), checkpoint)


def test_heads_are_those_of_the_provenance_or_those_given(
    made: Made, heads: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    bundle = made("fp32")
    found = heads_of(bundle)
    assert found is not None
    assert found.heads.config == read_heads(heads).heads.config
    moved = tmp_path / "moved.safetensors"
    shutil.copy(heads, moved)
    assert heads_of(bundle, moved) is not None
    other = tmp_path / "other.safetensors"
    write_heads(other, tiny_heads(checkpoint.config["vocab_size"], seed=1, feature_layers=(1, 2)))
    with pytest.raises(CheckpointError, match="file of heads that it was made of") as caught:
        heads_of(bundle, other)
    assert "is another file than" in caught.value.fact
    assert "--draft HEADS" in caught.value.next_step


def test_heads_that_are_gone(made: Made, tmp_path: Path) -> None:
    bundle = copy(made("fp32"), tmp_path / "bundle")
    raw = json.loads((bundle.path / "manifest.json").read_text())
    raw["provenance"]["draft"]["location"] = str(tmp_path / "gone.safetensors")
    (bundle.path / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError) as caught:
        heads_of(read_bundle(bundle.path))
    assert "gone.safetensors does not exist" in caught.value.fact
    del raw["provenance"]["draft"]
    (bundle.path / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError) as refused:
        heads_of(read_bundle(bundle.path))
    assert "does not name it" in refused.value.fact


def test_heads_for_a_bundle_without_are_refused(plain: Bundle, heads: Path) -> None:
    with pytest.raises(BundleError, match="those of the bundle") as caught:
        heads_of(plain, heads)
    assert "has none" in caught.value.fact


def test_the_command_shows_them(made: Made, heads: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n%%\n".join(PROMPTS))
    arguments = [str(made("fp32").path), "--prompts", str(prompts), "--tokens", "8", "--draft", str(heads)]
    result = CliRunner().invoke(command, arguments)
    assert result.exception is None, result.exception
    assert "draft heads, with the original model's features" in result.stdout
    rows = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    assert "<= 1e-05" in rows["total variation, mean"]
    assert "100.00%" in rows["same first choice"]


@pytest.mark.parametrize(
    ("variation", "weights", "words"),
    [
        (0.06, 0.0, "the mean total variation of drafted tokens is 0.06, at most 0.05 is due to rounding"),
        (0.0, 0.07, "of the components' weights is 0.07"),
        (float("nan"), 0.0, "drafted tokens is nan"),
    ],
)
def test_every_bound_can_be_broken(variation: float, weights: float, words: str) -> None:
    found = DraftAgreement(8, 0.1, variation, 0.5, 0.9, weights, DRAFT["int8"])
    assert words in str(found.objection)
    assert DraftAgreement(8, 0.1, 0.05, 0.5, 0.9, 0.05, DRAFT["int8"]).objection is None


def test_features_are_held_to_the_residual_streams_tolerance() -> None:
    assert GRAPH["float32"].of("features") is GRAPH["float32"].hidden


def test_rules_of_the_draft_graph_are_counted(made: Made) -> None:
    assert rule_counts(made("int8").manifest.raw["draft"])["pack_gate_up"] == {"fired": 1, "refused": 0}
