"""Hidden states on disk: right, bounded, and resumed where they were cut off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.checkpoint import open_checkpoint
from edgekit.draft import features as module
from edgekit.draft.features import cached_features, exact_streams, fast_streams, feature_bytes, narrowed
from edgekit.errors import DoesNotFit
from edgekit.layers.decoder import Decoder
from edgekit.models.registry import model_from_checkpoint
from tests.parity.tiny_models import write_checkpoint

TOKENS = np.random.default_rng(0).integers(3, 250, (3, 40))


def model_of(folder: Path, name: str) -> Decoder:
    return model_from_checkpoint(open_checkpoint(write_checkpoint(folder / name, name)))


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text"])
def test_they_are_the_models_own(tmp_path: Path, name: str) -> None:
    model = model_of(tmp_path, name)
    layers = (1, len(model.model.layers))
    found = cached_features(tmp_path / "cache", model, TOKENS, layers)
    assert found is not None
    ids = torch.from_numpy(TOKENS[1:2])
    with torch.no_grad():
        expected = model(ids, torch.ones_like(ids), model.empty_cache(1), torch.tensor([0]))
    hidden = torch.cat([expected.hidden[i][0] for i in layers], -1)
    np.testing.assert_allclose(found.features[1], hidden.numpy(), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found.totals[1], expected.logits[0].logsumexp(-1).numpy(), rtol=1e-5)
    assert (found.greedy[1] == expected.logits[0].argmax(-1).numpy()).all()
    assert (found.tokens == TOKENS).all()


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_the_fast_way_is_near_the_exact_one(tmp_path: Path, name: str) -> None:
    model, ids = model_of(tmp_path, name), torch.from_numpy(TOKENS[:1])
    with torch.no_grad():
        exact = list(exact_streams(model, ids))
        assert narrowed(model, name)
        fast = list(fast_streams(model, ids))
    assert len(fast) == len(exact) == len(model.model.layers)
    for one, other in zip(fast, exact, strict=True):
        cosine = torch.cosine_similarity(one.float().flatten(), other.flatten(), dim=0)
        assert cosine > 0.999


def test_an_architecture_that_the_fast_way_does_not_know_stays_exact(tmp_path: Path) -> None:
    model = model_of(tmp_path, "gemma3_text")
    assert not narrowed(model, "gemma3_text")
    assert model.model.embed_tokens.weight.dtype == torch.float32


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, done = model_of(tmp_path, "llama"), []
    whole = cached_features(tmp_path / "whole", model, TOKENS, (3,))
    real, calls = module._row, []

    def failing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "_row", failing)
    with pytest.raises(KeyboardInterrupt):
        cached_features(tmp_path / "parts", model, TOKENS, (3,))
    assert json.loads((tmp_path / "parts" / "rows.json").read_text()) == 2
    found = cached_features(tmp_path / "parts", model, TOKENS, (3,), advance=done.append)
    assert done == [80, 40]
    assert len(calls) == 4
    for name in ("features", "totals", "greedy"):
        assert (getattr(found, name) == getattr(whole, name)).all(), name


def test_a_small_disk_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(DoesNotFit, match="--positions"):
        cached_features(tmp_path / "cache", model_of(tmp_path, "llama"), TOKENS, (3,))
    assert feature_bytes(10, 100) == 10 * 212


def test_it_stops_between_rows(tmp_path: Path) -> None:
    asked = iter([False, True])
    model = model_of(tmp_path, "llama")
    assert cached_features(tmp_path / "c", model, TOKENS, (3,), stop=lambda: next(asked)) is None
    assert json.loads((tmp_path / "c" / "rows.json").read_text()) == 1
    found = cached_features(tmp_path / "c", model, TOKENS, (3,))
    assert found is not None
    assert (found.totals != 0).all()
