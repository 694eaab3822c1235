"""What is told of drafts, by arithmetic."""

from __future__ import annotations

import pytest

from edgekit.runtime.drafting.drafting import Drafting
from edgekit.runtime.drafting.fixed import FixedLength
from edgekit.runtime.drafting.statistics import DraftStatistics
from tests.runtime.drafting.fake_drafters import FakeDrafter
from tests.runtime.drafting.test_drafting import context


def always(count: int) -> Drafting:
    return Drafting([FakeDrafter(lambda tokens, count: [1] * count, longest=count)], FixedLength(count))


def stepped(drafting: Drafting, steps: int, most: int, accepted: int, step_s: float) -> None:
    for _ in range(steps):
        drafting.propose(context(1), most)
        drafting.record(accepted, 0.001 * (most > 0), step_s)


def test_steps_before_the_first_plain_one_are_not_compared() -> None:
    """40 steps of 11 ms that give 3 tokens, then a plain one of 6 ms as the text ends: 1.64 times as fast, not 0.01."""
    drafting = always(2)
    first = drafting.begin()
    stepped(drafting, 40, 2, 2, 0.010)
    assert first.speed_up is None
    assert "times plain decoding" not in first.summary()
    stepped(drafting, 1, 0, 0, 0.006)
    assert (first.compared_s, first.plain_s) == (pytest.approx(0.006), pytest.approx(0.006))
    assert first.speed_up is None, "a single step says nothing of the 40"
    second = drafting.begin()
    stepped(drafting, 40, 2, 2, 0.010)
    assert second.speed_up == pytest.approx(3 * 6 / 11)
    assert "1.64 times plain decoding" in second.summary()
    assert second.to_dict()["compared_s"] == pytest.approx(0.44)
    assert drafting.total.speed_up == pytest.approx((40 * 3 + 1) * 0.006 / (40 * 0.011 + 0.006))


def test_what_was_compared_is_added_up() -> None:
    total, known, unknown = DraftStatistics(), DraftStatistics(), DraftStatistics()
    known.add("cp", 2, 1, 0.002, 0.010, 0.009)
    unknown.add("cp", 2, 0, 0.002, 0.006)
    for each in (known, unknown):
        total.merge(each)
    assert (total.compared_s, total.plain_s) == (pytest.approx(0.012), pytest.approx(0.018))
    assert total.speed_up == pytest.approx(1.5)
    unknown.merge(unknown)
    assert unknown.speed_up is None
