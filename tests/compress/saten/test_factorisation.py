from __future__ import annotations

from math import prod

import pytest

from edgekit.compress.saten.factorisation import Factorisation, factorisation
from edgekit.errors import ExportError


@pytest.mark.parametrize("order", range(2, 7))
def test_modes_multiply_up_to_the_sides(order: int) -> None:
    shape = factorisation(576, 1536, order)
    assert shape.order == order
    assert abs(shape.split - (order - shape.split)) <= 1
    assert (prod(shape.inputs), prod(shape.outputs)) == (576, 1536)


def test_the_smallest_sum_of_modes() -> None:
    shape = factorisation(768, 3072, 4)
    assert (sorted(shape.inputs), sorted(shape.outputs)) == ([24, 32], [48, 64])
    # 12 = 2·2·3 and 30 = 2·3·5 leave order 5 two splits: 3+4 | 2+3+5 = 17 and 2+2+3 | 5+6 = 18.
    five = factorisation(12, 30, 5)
    assert (sorted(five.inputs), sorted(five.outputs)) == ([3, 4], [2, 3, 5])


def test_an_expected_rank_decides_by_parameters() -> None:
    """All factorisations of 12 × 8 of order 4 counted by hand as n1 r1 + r1 n2 r2 + r2 m1 r3 + r3 m2, ranks ≤ 3."""

    def count(n1: int, n2: int, m1: int, m2: int) -> int:
        r1, r2, r3 = min(3, n1), min(3, n1 * n2, m1 * m2), min(3, m2)
        return n1 * r1 + r1 * n2 * r2 + r2 * m1 * r3 + r3 * m2

    shapes = [(n, 12 // n, m, 8 // m) for n in (2, 3, 4, 6) for m in (2, 4)]
    found = factorisation(12, 8, 4, rank=3)
    assert found.parameters(found.ranks(3)) == min(count(*shape) for shape in shapes)


def test_counts_of_order_4() -> None:
    shape, (r1, r2, r3) = Factorisation((4, 6), (5, 7)), (3, 8, 2)
    ranks = (1, r1, r2, r3, 1)
    assert shape.parameters(ranks) == 4 * r1 + r1 * 6 * r2 + r2 * 5 * r3 + r3 * 7
    assert shape.multiply_adds(ranks) == 4 * 6 * r1 + r1 * 6 * r2 + r2 * 5 * r3 + 5 * 7 * r3
    assert shape.pair_parameters(ranks) == r2 * (24 + 35)


def test_largest_ranks() -> None:
    assert Factorisation((4, 6), (5, 7)).ranks() == (1, 4, 24, 7, 1)
    assert Factorisation((4, 6), (5, 7)).ranks(5) == (1, 4, 5, 5, 1)


@pytest.mark.parametrize(("inputs", "order", "fact"), [(12, 7, "7"), (12, 1, "1"), (13, 4, "13 × 8"), (12, 0, "0")])
def test_refusals(inputs: int, order: int, fact: str) -> None:
    with pytest.raises(ExportError, match=fact):
        factorisation(inputs, 8, order)


def test_a_prime_side_may_stay_whole() -> None:
    assert factorisation(13, 8, 3).modes == (13, 4, 2) or factorisation(13, 8, 3).modes == (13, 2, 4)
