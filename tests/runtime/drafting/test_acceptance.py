from __future__ import annotations

import random

import pytest

from edgekit.runtime.drafting.acceptance import NEUTRAL, Acceptance, Source

HEADS, COPY = Source("cp"), Source("ngram", 4)


def test_without_knowledge_it_is_neutral() -> None:
    assert Acceptance().chances(HEADS, 3) == pytest.approx([NEUTRAL] * 3)


def test_a_prior_is_what_is_expected_at_first() -> None:
    found = Acceptance({HEADS: (0.8, 0.6)})
    assert found.chances(HEADS, 4) == pytest.approx([0.8, 0.6, 0.6, 0.6])
    assert found.chances(COPY, 1) == [NEUTRAL], "of another source nothing is said"


def test_what_is_seen_outweighs_the_prior() -> None:
    """Chances by position, of drafts of four: the frequencies, seen through a memory of about 32 drafts."""
    dice, truth = random.Random(0), (0.9, 0.5, 0.7, 0.2)
    means = [0.0] * 4
    found = Acceptance()
    for turn in range(1000):
        accepted = 0
        while accepted < 4 and dice.random() < truth[accepted]:
            accepted += 1
        found.add(HEADS, 4, accepted)
        if turn >= 100:
            means = [mean + each / 900 for mean, each in zip(means, found.chances(HEADS, 4), strict=True)]
    # The last position is judged in a third of the drafts, so that the prior still weighs a sixth there.
    assert means == pytest.approx(truth, abs=0.08)


def test_positions_after_a_refusal_were_not_judged() -> None:
    found = Acceptance({HEADS: (0.5, 0.5)})
    for _ in range(50):
        found.add(HEADS, 2, 0)
    first, second = found.chances(HEADS, 2)
    assert first < 0.1
    assert second < 0.1, "a bad start bodes ill for what follows"
    for _ in range(200):
        found.add(HEADS, 2, 2)
    assert found.chances(HEADS, 2) == pytest.approx([0.95, 0.95], abs=0.05)


def test_it_follows_a_change() -> None:
    found = Acceptance()
    for _ in range(500):
        found.add(HEADS, 1, 1)
    assert found.chances(HEADS, 1)[0] > 0.93
    for _ in range(64):
        found.add(HEADS, 1, 0)
    assert found.chances(HEADS, 1)[0] < 0.2


def test_a_prior_of_nothing_is_believed_only_until_something_is_seen() -> None:
    found = Acceptance({HEADS: (0.0,)})
    assert found.chances(HEADS, 2) == [0.0, 0.0]
    for _ in range(20):
        found.add(HEADS, 2, 2)
    assert min(found.chances(HEADS, 2)) > 0.7
