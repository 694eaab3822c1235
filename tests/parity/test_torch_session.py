"""The PyTorch session: its cache is right, and prompts continued together are continued as each alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgekit.checkpoint import Checkpoint
from edgekit.layers.decoder import Decoder
from edgekit.models.registry import model_from_checkpoint
from edgekit.parity.torch_session import TorchSession, greedy

TOKENS = np.random.default_rng(0).integers(0, 260, (1, 21))


@pytest.fixture(scope="module", params=["llama", "gemma3_text"])
def model(request: pytest.FixtureRequest, tiny_checkpoint: Callable[[str], Checkpoint]) -> Decoder:
    return model_from_checkpoint(tiny_checkpoint(request.param))


def test_pieces_and_rollback_give_what_the_whole_gives(model: Decoder) -> None:
    session = TorchSession(model)
    whole = session.forward(TOKENS, keep=0)
    caches = session.caches()
    session.reset()
    assert session.length == 0
    session.forward(TOKENS[:, :10])
    session.forward(TOKENS[:, 3:7])
    session.rollback(10)
    assert session.length == 10
    rest = session.forward(TOKENS[:, 10:], keep=0)
    assert np.abs(rest - whole[:, 10:]).max() < 1e-5
    for now, earlier in zip(session.caches(), caches, strict=True):
        assert list(now) == ["key", "value"]
        for suffix, tensor in now.items():
            assert np.abs(tensor - earlier[suffix]).max() < 1e-5
    session.rollback(0)
    assert np.abs(session.forward(TOKENS, keep=0) - whole).max() < 1e-5


def test_hidden_states_of_every_layer(model: Decoder) -> None:
    session = TorchSession(model)
    logits = session.forward(TOKENS, keep=3)
    assert logits.shape[:2] == (1, 3)
    assert [state.shape for state in session.hidden] == [(1, 21, 64)] * (len(model.model.layers) + 1)


def test_prompts_together_as_each_alone(model: Decoder) -> None:
    prompts = [TOKENS[0, :5].tolist(), TOKENS[0, 3:20].tolist(), [7]]
    calls: list[int] = []
    together = greedy(model, prompts, 12, lambda: calls.append(1))
    assert len(calls) == 12
    for prompt, continuation in zip(prompts, together, strict=True):
        session, text = TorchSession(model), list(prompt)
        for _ in range(12):
            session.reset()
            text.append(int(session.forward(np.array([text]))[0, -1].argmax()))
        assert text[len(prompt) :] == continuation
