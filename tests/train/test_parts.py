"""The parts of training: windows, schedule, training forward, recipe, corpus, tokenizer."""

from __future__ import annotations

import hashlib
import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgekit.errors import EdgekitError, ModelError, RecipeError
from edgekit.models import registry
from edgekit.train.corpus import documents_of_file, documents_of_package, split
from edgekit.train.dense_forward import dense_logits, dense_loss
from edgekit.train.recipe import PackageTable, TrainingTable, read_training_recipe
from edgekit.train.tokenizer import END_OF_TEXT, tokens_of, trained_tokenizer
from edgekit.train.trainer import learning_rate
from edgekit.train.windows import Windows, consecutive_windows
from tests.models.t6_tools import CONFIG, VARIANTS, random_ids, random_model
from tests.train.conftest import text

LLAMA = {
    "model_type": "llama",
    "vocab_size": 83,
    "hidden_size": 30,
    "intermediate_size": 41,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("name", [*VARIANTS, "llama"])
def test_the_training_forward_is_the_models(name: str) -> None:
    model = random_model(LLAMA if name == "llama" else CONFIG | VARIANTS[name])
    ids = random_ids(2, 21)
    mask = torch.ones(2, 21, dtype=torch.int64)
    expected = model(ids, mask, model.empty_cache(2), torch.tensor([0])).logits
    torch.testing.assert_close(dense_logits(model, ids), expected, rtol=0, atol=1e-11)
    # The loss of 20 targets from 20 inputs, by hand.
    by_hand = -functional.log_softmax(expected[:, :-1], -1).gather(-1, ids[:, 1:, None]).mean()
    torch.testing.assert_close(dense_loss(model, ids).double(), by_hand, rtol=1e-5, atol=0)


def test_attention_that_training_does_not_know_is_refused() -> None:
    window = LLAMA | {"model_type": "mistral", "sliding_window": 4}
    with pytest.raises(ModelError, match="training supports"):
        dense_logits(registry.model_from_config(window), random_ids(1, 5))


def test_an_epoch_shows_each_window_once_and_depends_on_the_seed() -> None:
    tokens = np.arange(1003, dtype=np.int32)
    windows = Windows(tokens, 10, 3, seed=1)
    assert windows.per_epoch == 99
    assert windows.steps_per_epoch == 33
    first = np.concatenate([windows.step(i) for i in range(33)])
    assert first.shape == (99, 11)
    assert (np.diff(first, axis=1) == 1).all()
    assert len({row[0] for row in first}) == 99
    assert len({row[0] % 10 for row in first}) == 1
    second = np.concatenate([windows.step(33 + i) for i in range(33)])
    assert not np.array_equal(first, second)
    again = Windows(tokens, 10, 3, seed=1)
    assert np.array_equal(again.step(40), windows.step(40))
    assert not np.array_equal(Windows(tokens, 10, 3, seed=2).step(0), windows.step(0))


def test_consecutive_windows_hold_each_target_once() -> None:
    tokens = np.arange(1, 54, dtype=np.int32)
    windows = consecutive_windows(tokens, 10)
    assert windows[:, 1:].flatten().tolist() == list(range(2, 52))
    assert consecutive_windows(tokens, 10, 2)[:, 0].tolist() == [1, 41]


def test_the_rate_rises_and_falls() -> None:
    table = TrainingTable(context=2, batch=1, steps=110, learning_rate=1.0, warmup_steps=10, final_rate=0.1)
    rates = [learning_rate(table, step) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[109] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 0.99)) / 2)


def test_tokens_decode_to_the_documents() -> None:
    documents = text().split("\n\n")
    tokenizer = trained_tokenizer(documents, 300)
    assert tokenizer.get_vocab_size() == 300
    tokens = tokens_of(tokenizer, ["whales meet", "Zürich €"])
    assert tokens[0] == 0
    assert (tokens == 0).sum() == 2
    decoded = tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
    assert decoded == f"{END_OF_TEXT}whales meet{END_OF_TEXT}Zürich €"
    assert trained_tokenizer(documents, 300).to_str() == tokenizer.to_str()


def test_split_keeps_back_every_nth() -> None:
    corpus = split([str(i) for i in range(10)], 4)
    assert corpus.held_out == ["3", "7"]
    assert corpus.training == ["0", "1", "2", "4", "5", "6", "8", "9"]
    with pytest.raises(EdgekitError, match="at least 4 documents"):
        split(["a", "b", "c"], 4)


def test_documents_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"one\r\ntwo\r\n\r\n\r\nthree\n")
    assert documents_of_file(path) == ["one\ntwo", "three"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(EdgekitError, match="UTF-8"):
        documents_of_file(path)


def tarball(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def package(members: dict[str, bytes], **change: str) -> tuple[PackageTable, Any, list[str]]:
    """A package, a download that counts its calls and leaves that tarball, and the calls."""
    content, calls = tarball(members), []

    def download(requirement: str, directory: Path) -> None:
        calls.append(requirement)
        (directory / "package.tgz").write_bytes(content)

    fields = {"name": "texts@1.0.0", "sha256": hashlib.sha256(content).hexdigest(), "documents": "package/data/*.json"}
    return PackageTable(**(fields | change)), download, calls


def test_documents_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    members = {
        "package/data/b.json": json.dumps({"text": "second"}).encode(),
        "package/data/a.json": json.dumps({"text": "first"}).encode(),
        "package/index.js": b"",
    }
    table, download, calls = package(members)
    assert documents_of_package(table, download) == ["first", "second"]
    assert documents_of_package(table, download) == ["first", "second"]
    assert calls == ["texts@1.0.0"]


@pytest.mark.parametrize(
    ("members", "change", "fact"),
    [
        ({"package/data/a.json": b'{"text": "x"}'}, {"sha256": "0" * 64}, "it has "),
        ({"package/data/a.json": b"{"}, {}, "is not valid JSON"),
        ({"package/data/a.json": b'{"body": "x"}'}, {}, "has no text under 'text'"),
        ({"package/data/a.json": b"[]"}, {}, "has no text under 'text'"),
        ({"package/other.json": b"{}"}, {}, "no member is named like"),
    ],
)
def test_packages_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], change: dict[str, str], fact: str
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    table, download, _ = package(members, **change)
    with pytest.raises(EdgekitError) as caught:
        documents_of_package(table, download)
    assert fact in caught.value.fact


def test_without_npm_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    table, _, _ = package({})
    with pytest.raises(EdgekitError, match="--data FILE"):
        documents_of_package(table)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (("schema = 1", "schema = 2"), "schema is 2"),
        (("[training]", "[trainings]"), "trainings"),
        (("steps = 200", "step = 200"), "it holds 'step'"),
        (("batch = 4", "batch = 0"), "it is 0"),
        (("batch = 4", "batch = 4.5"), "it is 4.5"),
        (("warmup_steps = 5", "warmup_steps = 201"), "201 of 200"),
        (("vocab_size = 300", "vocab_size = 9"), "it is 9"),
        (("[gqa]", "[gqa"), "Expected"),
        (("[gqa]", "[[package]]\nname = 1\n[gqa]"), "it is 1"),
    ],
)
def test_recipes_that_are_refused(recipe_file: Path, change: tuple[str, str], fact: str) -> None:
    recipe_file.write_text(recipe_file.read_text().replace(*change))
    with pytest.raises(RecipeError) as caught:
        read_training_recipe(recipe_file)
    assert fact in caught.value.fact
    assert str(recipe_file) in caught.value.fact


def test_the_shipped_recipe_makes_models_of_equal_size() -> None:
    recipe = read_training_recipe(Path(__file__).parents[2] / "exports/t6-small/train.toml")
    counts = [
        sum(p.numel() for p in registry.model_on_meta(recipe.config(kind, 4096)).parameters())
        for kind in ("tpa", "gqa")
    ]
    assert abs(counts[0] - counts[1]) / counts[0] < 0.002
