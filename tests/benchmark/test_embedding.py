"""Timing an encoder, and that wrong embeddings are not timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from edgekit.benchmark.embedding import check_embeddings, measure
from edgekit.errors import SessionError
from edgekit.progress import SilentProgress

TEXTS = [[1, 2, 3], [4], [5, 6], [7, 7, 7, 7]]


class Fake:
    """Embeds a text as a random vector of its own; `spoil` changes the result of a call."""

    def __init__(self, spoil: Callable[[np.ndarray, int], np.ndarray] = lambda rows, call: rows) -> None:
        self.calls = 0
        self.spoil = spoil

    def embed(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        self.calls += 1
        rows = np.stack([np.random.default_rng(list(text)).standard_normal(16) for text in texts])
        return self.spoil(rows, self.calls)


def test_rates_are_texts_over_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 50.0, 52.0, 60.0, 68.0])  # the repetition that does not count reads the clock once
    monkeypatch.setattr("edgekit.benchmark.embedding.time.perf_counter", lambda: next(clock))
    session = Fake()
    found = measure(session, TEXTS, 2, SilentProgress())  # type: ignore[arg-type]
    assert found["texts_per_s"]["samples"] == [4 / 2, 4 / 8]
    assert (found["texts"], found["tokens"]) == (4, 10)
    assert session.calls == 3


def test_right_embeddings_pass() -> None:
    check_embeddings(Fake(), TEXTS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda rows, call: rows * np.nan, "not finite"),
        (lambda rows, call: rows * 0, "or zero"),
        (lambda rows, call: rows + (call == 2), "second time"),
        # As where padding is not heeded: a text alone is another than among longer ones.
        (lambda rows, call: rows if len(rows) > 1 else rows[:, ::-1], "alone"),
    ],
)
def test_wrong_embeddings_are_refused(spoil: Callable[[np.ndarray, int], np.ndarray], words: str) -> None:
    with pytest.raises(SessionError) as raised:
        check_embeddings(Fake(spoil), TEXTS)  # type: ignore[arg-type]
    assert words in raised.value.fact
