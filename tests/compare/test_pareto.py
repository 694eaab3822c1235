"""Which candidates are beaten, against the definition of dominance."""

from __future__ import annotations

import random

import pytest

from edgekit.compare.pareto import Candidate, Standing, beaten


def test_smaller_and_better_beats() -> None:
    found = beaten({"a": Candidate(100, (20.0,)), "b": Candidate(50, (19.0,)), "c": Candidate(40, (30.0,))})
    assert found == {"a": Standing("b", None)}


@pytest.mark.parametrize(
    ("other", "beats"),
    [
        (Candidate(100, (20.0, 0.1)), False),  # the same
        (Candidate(99, (20.0, 0.1)), True),
        (Candidate(100, (19.9, 0.1)), True),
        (Candidate(99, (20.1, 0.1)), False),
        (Candidate(99, (19.0, 0.2)), False),  # farther from the reference
    ],
)
def test_what_is_equal_does_not_count_against_it(other: Candidate, beats: bool) -> None:
    assert ("own" in beaten({"own": Candidate(100, (20.0, 0.1)), "other": other})) is beats


def test_being_like_itself_neither_saves_a_reference_nor_lets_it_win() -> None:
    reference = Candidate(100, (20.0, 0.0), likeness=1, is_reference=True)
    better = Candidate(50, (19.0, 0.3), likeness=1)
    assert beaten({"reference": reference, "better": better}) == {"reference": Standing("better", None)}
    worse = Candidate(200, (21.0, 0.3), likeness=1)
    assert beaten({"reference": reference, "worse": worse}) == {"worse": Standing("reference", None)}
    larger = Candidate(200, (19.0, 0.3), likeness=1)
    assert beaten({"reference": reference, "larger": larger}) == {}


def test_of_several_the_certain_one_is_named_and_then_the_best() -> None:
    candidates = {"own": Candidate(100, (20.0,)), "best": Candidate(90, (19.0,)), "sure": Candidate(90, (19.5,))}
    assert beaten(candidates)["own"].by == "best"
    found = beaten(candidates, lambda winner, loser: winner == "sure")
    assert found["own"] == Standing("sure", True)


def test_what_is_beaten_may_be_faster() -> None:
    candidates = {"own": Candidate(100, (20.0,), 30.0), "other": Candidate(90, (19.0,), 20.0)}
    assert beaten(candidates)["own"].faster == pytest.approx(1.5)
    slower = {"own": Candidate(100, (20.0,), 10.0), "other": Candidate(90, (19.0,), 20.0)}
    assert beaten(slower)["own"].faster is None
    unknown = {"own": Candidate(100, (20.0,)), "other": Candidate(90, (19.0,), 20.0)}
    assert beaten(unknown)["own"].faster is None


def test_there_is_always_one_that_is_not_beaten_and_winners_are_no_worse() -> None:
    draw = random.Random(5)
    for _ in range(200):
        candidates = {
            str(index): Candidate(draw.randint(1, 5), (float(draw.randint(1, 5)), float(draw.randint(1, 3))))
            for index in range(draw.randint(1, 7))
        }
        found = beaten(candidates)
        assert len(found) < len(candidates)
        for loser, standing in found.items():
            winner, own = candidates[standing.by], candidates[loser]
            assert winner != own
            assert winner.bytes <= own.bytes
            assert all(theirs <= ours for theirs, ours in zip(winner.badness, own.badness, strict=True))
