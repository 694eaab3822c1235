from __future__ import annotations

import time
from array import array
from collections.abc import Sequence

import numpy as np
import pytest

from edgekit.runtime.drafting.ngram import NGramDrafter
from edgekit.runtime.sampling import SamplingOptions
from tests.runtime.drafting.enumeration import context


def proposed(drafter: NGramDrafter, tokens: Sequence[int], count: int = 4) -> list[int]:
    proposal = drafter.propose(context(SamplingOptions(), np.random.default_rng(0), tokens), count)
    assert proposal.distributions == (None,) * len(proposal.tokens)
    assert proposal.source == "ngram"
    return list(proposal.tokens)


def definition(tokens: Sequence[int], count: int, lengths: Sequence[int]) -> list[int]:
    """By looking everywhere: what followed the longest end that occurs earlier, where it does so last."""
    tokens = list(tokens)
    for length in lengths:
        for place in range(len(tokens) - 1, length - 1, -1):
            if length < len(tokens) and tokens[place - length : place] == tokens[-length:]:
                extended = [*tokens]
                for i in range(count):
                    extended.append(extended[place + i])
                return extended[len(tokens) :]
    return []


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], []),
        ([5], []),
        ([5, 5], []),
        ([5, 5, 5], [5, 5, 5, 5]),
        ([1, 2, 3, 4, 5, 6], []),
        ([1, 2, 3, 4, 5, 6, 1, 2], [3, 4, 5, 6]),
        ([1, 2, 3, 1, 2], [3, 1, 2, 3]),
        ([9, 2, 3, 9, 1, 2, 7, 1, 2], [7, 1, 2, 7]),
        ([4, 1, 2, 8, 8, 6, 1, 2, 7, 7, 4, 1, 2], [8, 8, 6, 1]),
        ([1, 2, 1, 2, 1, 2], [1, 2, 1, 2]),
    ],
    ids=str,
)
def test_examples(tokens: list[int], expected: list[int]) -> None:
    assert proposed(NGramDrafter(), tokens) == expected


def test_only_as_many_as_asked_for() -> None:
    assert proposed(NGramDrafter(), [1, 2, 3, 4, 5, 6, 1, 2], count=1) == [3]
    assert NGramDrafter(longest=11).longest == 11


def test_a_short_match_may_be_too_short() -> None:
    tokens = [1, 2, 3, 7, 2, 3]
    assert proposed(NGramDrafter(), tokens) == [7, 2, 3, 7]
    assert proposed(NGramDrafter(shortest_match=3), tokens) == []
    assert proposed(NGramDrafter(shortest_match=1), [4, 5, 4]) == [5, 4, 5, 4]


@pytest.mark.parametrize("lengths", [(4, 3, 2), (3,), (1,), (6, 5, 4, 3, 2, 1)])
@pytest.mark.parametrize("make", [list, lambda tokens: array("q", tokens)], ids=["list", "array"])
def test_a_growing_context(lengths: tuple[int, ...], make: type) -> None:
    """As a text is generated: by one token or by several, few different ones, so that everything occurs."""
    rng = np.random.default_rng(0)
    text = rng.integers(0, 3, 400).tolist()
    drafter = NGramDrafter(shortest_match=lengths[-1], longest_match=lengths[0])
    size = found = 0
    while size < len(text):
        size += int(rng.integers(1, 5))
        expected = definition(text[:size], 5, lengths)
        assert proposed(drafter, make(text[:size]), 5) == expected
        found += bool(expected)
    assert found > 50


def test_a_context_that_is_cut_or_replaced() -> None:
    """Truncation keeps a beginning and drops what follows; a new prompt may be longer or shorter than the last."""
    rng = np.random.default_rng(1)
    drafter = NGramDrafter()
    text: list[int] = []
    for step in range(300):
        text = [*text, *rng.integers(0, 4, 3).tolist()]
        if step % 40 == 17:
            text = text[:5] + text[len(text) // 2 :]
        if step % 40 == 27:
            text = text[: len(text) // 3]
        if step % 40 == 37:
            text = rng.integers(0, 4, len(text) + 50).tolist()
        assert proposed(drafter, text) == definition(text, 4, (4, 3, 2))


def test_a_change_long_before_the_end_is_noticed_where_it_matters() -> None:
    """The last tokens are as they were and the context has grown: what is copied is nevertheless there to be copied."""
    drafter = NGramDrafter()
    tail = list(range(100, 200))
    assert proposed(drafter, [1, 2, 3, 4, *tail, 1, 2]) == [3, 4, 100, 101]
    assert proposed(drafter, [1, 2, 3, 4, *tail, 1, 2, 3]) == [4, 100, 101, 102]
    changed = [7, 3, 9, 4, *tail, 1, 2, 3, 50, 60, 2, 3]
    assert proposed(drafter, changed) == [50, 60, 2, 3]
    assert proposed(drafter, [8, 8, 1, 3, *tail, 1, 2, 3, 50, 60, 2, 3, 4]) == []


def test_what_was_proposed_changes_nothing() -> None:
    drafter = NGramDrafter()
    tokens = [1, 2, 3, 4, 5, 6, 1, 2]
    assert proposed(drafter, tokens) == proposed(drafter, tokens) == [3, 4, 5, 6]
    assert proposed(drafter, [*tokens, 3, 9]) == []
    drafter.close()
    assert proposed(drafter, tokens) == [3, 4, 5, 6]


def test_a_proposal_costs_little_in_a_long_context() -> None:
    """Far below the time of looking through 8192 tokens, which is about a millisecond."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 50, 8192).tolist()
    drafter = NGramDrafter()
    proposed(drafter, tokens)
    asked = context(SamplingOptions(), rng, tokens)
    times = []
    for _ in range(300):
        tokens.append(int(rng.integers(0, 50)))
        start = time.perf_counter()
        drafter.propose(asked, 4)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 200e-6


@pytest.mark.parametrize("sizes", [(0, 2, 4), (8, 0, 4), (8, 3, 2)])
def test_impossible_lengths(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="lengths must be"):
        NGramDrafter(*sizes)
