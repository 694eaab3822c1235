from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.runtime.drafting.chance import choose, happens
from edgekit.runtime.drafting.interface import Distribution


class Fixed:
    """In place of a random generator: always the same number."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


LAST = 1 - 2.0**-53


@pytest.mark.parametrize(
    ("probability", "number", "expected"),
    [
        (0.3, 0.0, True),
        (0.3, 0.2999999, True),
        (0.3, 0.3, False),
        (0.3, LAST, False),
        (0.0, 0.0, False),
        (1.0, LAST, True),
    ],
)
def test_happens(probability: float, number: float, expected: bool) -> None:
    generator: Any = Fixed(number)
    assert happens(probability, generator) is expected


@pytest.mark.parametrize(("number", "expected"), [(0.0, 2), (0.2499, 2), (0.25, 7), (0.7499, 7), (0.75, 9), (LAST, 9)])
def test_choose(number: float, expected: int) -> None:
    generator: Any = Fixed(number)
    assert choose(Distribution(np.array([2, 7, 9]), np.array([0.25, 0.5, 0.25])), generator) == expected
