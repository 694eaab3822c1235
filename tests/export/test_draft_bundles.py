"""Bundles with draft heads, made by the real exporter: their files, the manifest's entry, and nothing new without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit import contract
from edgekit.bundle import Bundle, read_bundle
from edgekit.chat.tokenizer import tokenizer_from_bundle
from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.errors import ExportError
from edgekit.export.options import ExportOptions
from edgekit.recipe.fingerprint import fingerprint_of
from edgekit.runtime.session import session_from_bundle
from tests.export.test_genai_config import genai_tokens, own_tokens
from tests.export.tiny_heads import export_with_heads, written_heads
from tests.parity.tiny_models import export, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("c") / "llama", "llama", num_hidden_layers=2))


@pytest.fixture(scope="module")
def heads(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_heads(tmp_path_factory.mktemp("heads") / "heads.safetensors", checkpoint, feature_layers=(1, 2))


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(checkpoint, tmp_path_factory.mktemp("plain") / "bundle", "ort", "int8")


@pytest.fixture(scope="module")
def drafting(checkpoint: Checkpoint, heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_with_heads(checkpoint, tmp_path_factory.mktemp("drafting") / "bundle", heads, "ort", "int8")


def test_without_heads_nothing_is_new(plain: Bundle) -> None:
    assert plain.manifest.draft is None
    assert "draft" not in plain.manifest.raw
    assert not [entry.name for entry in plain.manifest.files if "draft" in entry.name]
    assert contract.DRAFT_FEATURES not in [value["name"] for value in plain.manifest.graph.outputs]
    session = session_from_bundle(plain, threads=1)
    session.forward(np.ones((1, 4), np.int64))
    assert session.features is None


def test_the_decoders_weights_are_the_same(plain: Bundle, drafting: Bundle) -> None:
    assert drafting.manifest.raw["rules"] == plain.manifest.raw["rules"]
    data = [(bundle.path / "model.onnx.data").read_bytes() for bundle in (drafting, plain)]
    assert data[0] == data[1]


def test_genai_runs_it_all_the_same(drafting: Bundle) -> None:
    """It binds outputs by name, and leaves the features alone."""
    prompt = tokenizer_from_bundle(drafting).encode("hello world, hello")
    assert genai_tokens(drafting.path, [prompt], 12) == [own_tokens(drafting.path, prompt, 12)]


def test_the_entry_names_every_file(drafting: Bundle, heads: Path) -> None:
    bundle = read_bundle(drafting.path, verify="full")
    draft = bundle.manifest.draft
    assert draft is not None
    assert draft.files == ("draft.onnx", "draft.onnx.data", "draft_vocabulary.npy")
    assert set(draft.files) <= {entry.name for entry in bundle.manifest.files}
    assert (draft.tokens, draft.rank, draft.components) == (3, 4, 2)
    assert (draft.feature_layers, draft.features, draft.vocabulary_size) == ((1, 2), 128, 90)
    assert draft.acceptance == {}
    assert draft.window == 7
    origin = bundle.manifest.raw["provenance"]["draft"]
    assert (origin["path"], origin["location"], origin["of_checkpoint"]) == (heads.name, str(heads), None)
    features = next(v for v in bundle.manifest.graph.outputs if v["name"] == contract.DRAFT_FEATURES)
    assert (features["dtype"], features["shape"]) == ("float32", ["batch_size", "kept_sequence_length", 128])


def test_a_fingerprint_has_both_graphs(plain: Bundle, drafting: Bundle) -> None:
    assert "draft" not in fingerprint_of(plain)
    found = json.loads(json.dumps(fingerprint_of(drafting)))["draft"]
    assert found["rules"]["quantize_linear"] == {"fired": 12, "refused": 1}
    assert found["inputs"] == {
        "draft_features float [batch_size, new_positions, 128]": 1,
        "draft_token int64 [batch_size, new_positions]": 1,
        "draft_noise float [batch_size, 4]": 1,
        "draft_past float [batch_size, 7, 129]": 1,
    }
    assert found["outputs"] == {
        "draft_log_weights float [batch_size, 2]": 1,
        "draft_probabilities float [batch_size, 3, 2, 90]": 1,
        "draft_present float [batch_size, 7, 129]": 1,
    }


@pytest.mark.parametrize("option", ["draft_components", "draft_tokens"])
def test_what_is_of_heads_is_refused_without_any(option: str) -> None:
    with pytest.raises(ExportError, match="components and drafted tokens are of draft heads"):
        ExportOptions(dtype="fp32", **{option: 2})
