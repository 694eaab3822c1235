"""Conversations in PyTorch: turns as the plain loop takes them, logits as the model gives them, draws that repeat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.checkpoint import open_checkpoint
from edgekit.draft import conversations as plain
from edgekit.draft import talk as talking
from edgekit.draft.conversations import Frame
from edgekit.draft.features import narrowed
from edgekit.errors import ModelError
from edgekit.models.registry import model_from_checkpoint
from tests.parity.tiny_models import write_checkpoint

FRAME = Frame((5, 6, 7), (8, 9), (10, 11, 12))
EOS = (2, 3)


@pytest.mark.parametrize("seed", range(3))
def test_turns_are_those_of_the_plain_loop(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (plain, talking):
        monkeypatch.setattr(module, "USER_TOKENS", 5)
        monkeypatch.setattr(module, "ANSWER_TOKENS", 9)
    generator, rows = np.random.default_rng(seed), 6
    turns = talking.Turns(rows, FRAME, EOS, torch.device("cpu"))
    each = [plain._Row(0.0 if index % 2 else plain.ANSWER_TEMPERATURE) for index in range(rows)]
    answered = 0
    for _ in range(80):
        wanted = [row.temperature if row.answering else plain.USER_TEMPERATURE for row in each]
        assert turns.temperatures().tolist() == pytest.approx(wanted)
        chosen = generator.integers(0, 40, rows)
        expected = [row.next(int(token), FRAME, EOS) for row, token in zip(each, chosen, strict=True)]
        assert turns.next(torch.from_numpy(chosen)).tolist() == expected
        answered += sum(row.answering for row in each)
    assert answered > 0


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_what_is_said_greedily_is_what_the_model_says(model_type: str, tmp_path: Path) -> None:
    model = model_from_checkpoint(open_checkpoint(write_checkpoint(tmp_path / "m", model_type)))
    with torch.inference_mode():
        said = talking.talk(model, FRAME, (), rows=2, length=24, seed=1)
    # The second row answers greedily once it has asked; before that words are drawn, so follow the model along them.
    assert said[:, :3].tolist() == [list(FRAME.opening)] * 2
    caches = [torch.zeros(2, 2, a.shape.kv_heads, 24, a.shape.head_dim) for a in talking._attentions(model)]
    ids = torch.from_numpy(said)
    with torch.inference_mode():
        whole = model(ids, torch.ones_like(ids), model.empty_cache(2), torch.tensor([24])).logits
        for place in range(24):
            found = talking._step(model, ids[:, place : place + 1], place, caches, torch.float32)
            torch.testing.assert_close(found, whole[:, place], rtol=1e-4, atol=1e-4)


def test_the_same_seed_says_the_same(tmp_path: Path) -> None:
    model = model_from_checkpoint(open_checkpoint(write_checkpoint(tmp_path / "m", "llama")))
    assert narrowed(model, "llama")
    first, again = (talking.talk(model, FRAME, EOS, rows=3, length=20, seed=4) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, talking.talk(model, FRAME, EOS, rows=3, length=20, seed=5))


def test_draws_are_of_the_likeliest_and_as_likely_as_they_should_be() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.04, 0.01]])).expand(20_000, -1)
    generator = torch.Generator().manual_seed(0)
    found = talking.drawn(logits, torch.ones(20_000), generator).bincount(minlength=6) / 20_000
    # 95 % of the mass are the first four and a fifth that passes it: 0.95 is reached after the fourth.
    wanted = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.0, 0.0]) / 0.95
    assert (found - wanted).abs().max() < 0.015
    assert found[4:].sum() == 0
    assert talking.drawn(logits[:5], torch.zeros(5), generator).tolist() == [0] * 5


def test_another_attention_is_refused(tmp_path: Path) -> None:
    model = model_from_checkpoint(open_checkpoint(write_checkpoint(tmp_path / "m", "qwen3")))
    with pytest.raises(ModelError, match="plain attention"):
        talking.talk(model, FRAME, EOS, rows=1, length=8, seed=0)
