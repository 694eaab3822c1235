"""Two texts agree, differ by rounding, or are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.benchmark.agreement import Agreement, agreement
from edgekit.errors import SessionError
from tests.runtime.fake_sessions import HashSession

PROMPT = [1, 2, 3]


def greedy(session: HashSession, count: int) -> list[int]:
    session.reset()
    tokens = list(PROMPT)
    for _ in range(count):
        session.cache = list(tokens)
        tokens.append(int(session.row().argmax()))
    session.reset()
    return tokens[len(PROMPT) :]


def ranked(session: HashSession, tokens: list[int]) -> np.ndarray:
    """Tokens after PROMPT and `tokens`, the likeliest first."""
    session.cache = [*PROMPT, *tokens]
    order = np.argsort(-session.row())
    session.reset()
    return order


class Rounding(HashSession):
    """Of several tokens at once the logits are off by up to 0.05; the two likeliest are 0.02 apart."""

    def row(self) -> np.ndarray:
        logits = super().row()
        first, second = np.argsort(-logits)[:2]
        logits[second] = logits[first] - 0.02
        return logits

    def forward(self, tokens: Any, keep: int = 1) -> Any:
        logits = super().forward(tokens, keep)
        if tokens.shape[1] > 1:
            logits += np.random.default_rng(0).uniform(-0.05, 0.05, logits.shape[-1])
        return logits


def test_equal_texts_agree_without_a_look() -> None:
    session = HashSession()
    text = greedy(session, 10)
    assert agreement(session, PROMPT, text, list(text)) == Agreement(10, True)
    assert session.calls == []


def test_a_token_that_rounding_decides_is_let_pass() -> None:
    session = Rounding(capacity=99)
    text = greedy(session, 40)
    other = [*text[:30], int(ranked(session, text[:30])[1]), 7, 7]
    found = agreement(session, PROMPT, text, other)
    assert (found.tokens, found.identical) == (30, False)
    assert 0.02 <= found.rounding <= 0.11
    assert found.gap <= 2 * found.rounding


@pytest.mark.parametrize("swapped", [False, True])
def test_another_token_is_refused(swapped: bool) -> None:
    session = HashSession()
    text = greedy(session, 10)
    other = [*text[:4], int(ranked(session, text[:4])[1]), 7]
    both = (other, text) if swapped else (text, other)
    with pytest.raises(SessionError) as caught:
        agreement(session, PROMPT, *both)
    assert caught.value.rule == "drafts must not change what a model says"
    assert "after 4 tokens" in caught.value.fact


def test_even_with_rounding_a_token_far_down_is_refused() -> None:
    session = Rounding(capacity=99)
    text = greedy(session, 20)
    with pytest.raises(SessionError, match="after 10 tokens"):
        agreement(session, PROMPT, text, [*text[:10], int(ranked(session, text[:10])[20])])


def test_a_text_that_ends_early_is_refused() -> None:
    session = HashSession()
    text = greedy(session, 10)
    with pytest.raises(SessionError, match="10 tokens and drafts give 8"):
        agreement(session, PROMPT, text, text[:8])
