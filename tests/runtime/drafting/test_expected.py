from __future__ import annotations

from itertools import accumulate
from operator import mul

import pytest

from edgekit.runtime.drafting.expected import expected_tokens


def test_by_hand() -> None:
    assert expected_tokens(()) == [1.0]
    assert expected_tokens((0.5, 0.4, 1.0)) == pytest.approx([1.0, 1.5, 1.7, 1.9])


@pytest.mark.parametrize("chances", [(0.9, 0.5, 0.2, 0.7), (0.0, 1.0), (1.0, 1.0, 0.0, 0.5), (0.8,) * 5], ids=str)
def test_by_enumeration(chances: tuple[float, ...]) -> None:
    """The sum over where a draft stops."""
    reached = [1.0, *accumulate(chances, mul)]
    for count in range(len(chances) + 1):
        stops = [(reached[k] * (1 - chances[k]), k + 1) for k in range(count)] + [(reached[count], count + 1)]
        wanted = sum(chance * tokens for chance, tokens in stops)
        assert expected_tokens(chances)[count] == pytest.approx(wanted)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8, 0.99])
def test_of_one_chance_it_is_the_published_formula(p: float) -> None:
    wanted = [(1 - p ** (n + 1)) / (1 - p) for n in range(17)]
    assert expected_tokens((p,) * 16) == pytest.approx(wanted)
    assert expected_tokens((1.0,) * 16) == list(range(1, 18))
