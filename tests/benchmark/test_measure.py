"""What is timed, on sessions without an engine whose clock is under control."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgekit.benchmark import measure as module
from edgekit.benchmark.measure import Timing, check_answers, measure
from edgekit.errors import SessionError
from edgekit.progress import SilentProgress
from tests.runtime.fake_sessions import HashSession


class Clock:
    """Time that passes only when a session works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TimedSession(HashSession):
    """A prompt token takes 1 ms; a step takes 10 ms and 0.1 ms for each token in the cache."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(capacity=1000)
        self.clock = clock

    def forward(self, tokens: np.ndarray, keep: int = 1) -> np.ndarray:
        new = tokens.shape[1]
        self.clock.now += 0.001 * new if new > 1 else 0.01 + 0.0001 * self.length
        return super().forward(tokens, keep)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(module.time, "perf_counter", fake)
    monkeypatch.setattr(module, "PROMPT_CHUNK", 16)
    return fake


def test_times_and_rates(clock: Clock) -> None:
    timing = Timing(prompt_tokens=(40, 20), depths=(60, 30), decode_tokens=4, repetitions=3)
    session = TimedSession(clock)
    report = measure(session, 50, timing, SilentProgress()).to_dict(timing)
    assert [row["tokens"] for row in report["prompts"]] == [40, 20]
    for row in report["prompts"]:
        assert row["ttft_s"]["samples"] == pytest.approx([row["tokens"] / 1000] * 3)
        assert row["tokens_per_s"]["median"] == pytest.approx(1000)
    assert [row["depth"] for row in report["decodes"]] == [60, 30]
    for row in report["decodes"]:
        # Steps find depth, depth + 1, depth + 2 and depth + 3 tokens in the cache.
        seconds = 0.01 + 0.0001 * (row["depth"] + 1.5)
        assert row["s_per_token"]["samples"] == pytest.approx([seconds] * 3)
        assert row["tokens_per_s"]["median"] == pytest.approx(1 / seconds)
        steps = [0.01 + 0.0001 * (row["depth"] + step) for step in range(4)]
        assert [pytest.approx(steps)] * 3 == row["steps_s"]


def test_prompts_go_through_in_pieces_and_one_repetition_is_not_counted(clock: Clock) -> None:
    timing = Timing((40,), (20,), 2, repetitions=2)
    session = TimedSession(clock)
    result = measure(session, 50, timing, SilentProgress())
    assert [len(seconds) for seconds in result.prompts.values()] == [2]
    lengths = [len(call) for call in session.calls]
    assert lengths == [16, 16, 8, 16, 4, 1, 1] * 3
    # The same prompt each time, and no two sizes share a repetition's place.
    assert session.calls[0] == session.calls[7]
    assert len(result.others) == 2


class Forgetful(HashSession):
    """Its cache holds something else after a reset."""

    def reset(self) -> None:
        self.cache = [*self.cache[-1:], 5] if self.calls else []


class Blind(HashSession):
    """Token by token it sees only the newest."""

    def forward(self, tokens: np.ndarray, keep: int = 1) -> np.ndarray:
        if tokens.shape[1] == 1:
            self.cache = self.cache[:0]
        return super().forward(tokens, keep)


class NotANumber(HashSession):
    def row(self) -> np.ndarray:
        return np.full(self.vocab, np.nan, np.float32)


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Forgetful, "and then by"), (Blind, "have a cosine of"), (NotANumber, "not finite")],
)
def test_wrong_answers_are_refused(kind: Callable[[], HashSession], words: str) -> None:
    with pytest.raises(SessionError, match=words):
        check_answers(kind(), 50)


def test_right_answers_pass() -> None:
    check_answers(HashSession(), 50)
