"""Each token of a text is predicted once, in windows that fit."""

from __future__ import annotations

import pytest

from edgekit.errors import EdgekitError
from edgekit.evaluate.windows import WindowPlan, plan_of, window_at, window_count

BOS = 99


def predicted(length: int, plan: WindowPlan) -> list[int]:
    """The positions in the text that are predicted, in order; tokens are their own positions."""
    text = list(range(length))
    positions: list[int] = []
    for index in range(window_count(length, plan)):
        window = window_at(text, index, plan)
        assert 0 < window.scored < len(window.tokens) <= plan.context
        if plan.bos is not None:
            assert window.tokens[0] == plan.bos
        positions += window.tokens[-window.scored :]
    return positions


@pytest.mark.parametrize("length", range(2, 40))
@pytest.mark.parametrize("stride", [1, 3, 7, 8])
def test_with_overlap_every_token_but_the_first_is_predicted_once(length: int, stride: int) -> None:
    found = predicted(length, WindowPlan(8, stride))
    if stride < 8:
        assert found == list(range(1, length))
    else:
        assert found == [position for position in range(length) if position % 8]


@pytest.mark.parametrize("length", range(1, 40))
@pytest.mark.parametrize("stride", [1, 3, 7])
def test_after_a_bos_every_token_is_predicted_once(length: int, stride: int) -> None:
    assert predicted(length, WindowPlan(8, stride, BOS)) == list(range(length))


def test_a_window_begins_with_tokens_that_an_earlier_one_predicted() -> None:
    window = window_at(list(range(100)), 2, WindowPlan(8, 3))
    assert window.tokens == (6, 7, 8, 9, 10, 11, 12, 13)
    assert window.scored == 3  # the window before ended with token 10


def test_known_cuts() -> None:
    text = list(range(10))
    plan = plan_of(4, None, None)
    assert plan.stride == 4
    assert [window_at(text, i, plan).tokens for i in range(3)] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    with_bos = plan_of(4, None, BOS)
    assert with_bos.stride == 3
    assert [window_at(text, i, with_bos).tokens for i in (0, 3)] == [(BOS, 0, 1, 2), (BOS, 9)]
    assert window_count(10, with_bos) == 4
    # A last window of one token has nothing to predict it from.
    assert window_count(9, plan) == 2


@pytest.mark.parametrize(
    ("context", "stride", "bos", "words"),
    [
        (1, 1, None, "the context is 1"),
        (8, 0, None, "it is 0"),
        (8, 9, None, "between 1 and 8"),
        (8, 8, BOS, "between 1 and 7"),
    ],
)
def test_refusals(context: int, stride: int, bos: int | None, words: str) -> None:
    with pytest.raises(EdgekitError, match=words):
        plan_of(context, stride, bos)
