"""Negative log-likelihoods, against a plain computation in float64."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import SessionError
from edgekit.evaluate.scoring import token_nats, window_nats
from edgekit.evaluate.windows import Window
from tests.runtime.fake_sessions import HashSession


def plain_nats(logits: np.ndarray, target: int) -> float:
    wide = logits.astype(np.float64)
    return float(np.log(np.exp(wide - wide.max()).sum()) + wide.max() - wide[target])


def test_each_position() -> None:
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((37, 1000)) * 5 + 1e3).astype(np.float32)
    targets = rng.integers(0, 1000, 37)
    expected = [plain_nats(row, target) for row, target in zip(logits, targets, strict=True)]
    assert token_nats(logits, targets) == pytest.approx(expected, rel=1e-6)


def test_what_is_not_finite_is_refused() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(SessionError, match="finite"):
            token_nats(np.array([[0.0, bad]], np.float32), np.array([0]))


@pytest.mark.parametrize("chunk", [1, 4, 5, 100])
@pytest.mark.parametrize("scored", [1, 5, 12])
def test_a_window_is_scored_token_by_token_whatever_the_chunks(scored: int, chunk: int) -> None:
    tokens = tuple(np.random.default_rng(1).integers(0, 50, 13).tolist())
    session = HashSession()
    expected = 0.0
    for place in range(13 - scored, 13):
        session.cache = list(tokens[:place])
        expected += plain_nats(session.row(), tokens[place])
    session.cache = [1, 2, 3]  # from an earlier window
    session.calls.clear()
    assert window_nats(session, Window(tokens, scored), chunk) == pytest.approx(expected, rel=1e-6)
    assert [token for call in session.calls for token in call] == list(tokens[:-1])
    assert max(map(len, session.calls)) <= chunk


class KeepsCounting(HashSession):
    """Remembers how many positions were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[int] = []

    def forward(self, tokens: np.ndarray, keep: int = 1) -> np.ndarray:
        self.kept.append(keep)
        return super().forward(tokens, keep)


def test_logits_are_made_only_where_a_token_is_predicted() -> None:
    session = KeepsCounting()
    window_nats(session, Window(tuple(range(13)), 6), chunk=4)
    # 12 inputs in 3 chunks; the last 6 positions predict. A chunk that predicts nothing still gives one.
    assert session.kept == [1, 2, 4]
