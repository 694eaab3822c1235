"""What bits are worth: the coin is bits of codes, a quarter of the loss each."""

from __future__ import annotations

import math

import pytest

from edgekit.compress.layerwise.allocate import shared, timed
from edgekit.compress.layerwise.worth import choices, correction_worth, probe_base
from edgekit.compress.saten.methods.saten_augmented import possible_bases
from edgekit.compress.saten.request import Settings
from edgekit.errors import ExportError

SHAPE = (576, 1536)
WEIGHTS = SHAPE[0] * SHAPE[1]


def test_probe() -> None:
    assert probe_base(SHAPE, Settings())[1:] == (3, 128)
    assert probe_base((576, 576), Settings())[1:] == (3, 64)  # 128 does not divide 576
    assert probe_base(SHAPE, Settings(base_bits=(4,), base_blocks=(32,)))[1:] == (4, 32)
    assert probe_base((8, 40), Settings())[1:] == (3, 32)  # padded


def test_codes_of_a_bit_more_lose_a_quarter() -> None:
    size = probe_base(SHAPE, Settings())[0]
    by_base = {(c.bits, c.block): c.loss for c in choices("dense", SHAPE, Settings(), [(size, 8.0)])}
    assert by_base[3, 128] == pytest.approx(8.0)
    assert by_base[4, 128] == pytest.approx(2.0)
    assert by_base[2, 128] == pytest.approx(32.0)
    assert by_base[3, 32] < by_base[3, 64] < by_base[3, 128] < by_base[3, 256]


def test_the_probe_with_a_correction_is_met() -> None:
    """The curve goes through both probes."""
    plain = probe_base(SHAPE, Settings())[0]
    larger = plain + int(0.12 * WEIGHTS / 8)
    points = [(plain, 8.0), (larger, 5.0)]
    share = 8 * (larger - plain) / WEIGHTS
    worth = correction_worth(points, SHAPE)
    assert 8.0 * 4 ** -(worth * share / (1 + 0.55 * share)) == pytest.approx(5.0)
    assert correction_worth([(plain, 8.0), (larger, 9.0)], SHAPE) == 0  # a correction that does harm is worth nothing


def test_bytes_go_to_corrections_only_where_they_are_worth_more() -> None:
    """Of two matrices alike but for what a correction wins, one gets it; together they stay within the budget."""
    plain = probe_base(SHAPE, Settings())[0]
    larger = plain + int(0.12 * WEIGHTS / 8)
    points = {"keen": [(plain, 8.0), (larger, 8.0 * 4**-0.3)], "dull": [(plain, 8.0), (larger, 8.0 * 4**-0.01)]}
    budget = math.ceil(2 * 3.3 * WEIGHTS / 8)
    chosen = shared("saten-augmented", dict.fromkeys(points, SHAPE), points, budget, Settings())
    assert sum(option.nbytes for option in chosen.values()) <= budget
    bases = {size for size, _, _ in possible_bases(SHAPE, Settings())}
    assert chosen["dull"].nbytes in bases
    assert chosen["keen"].nbytes not in bases


def test_a_time_for_a_token() -> None:
    """The longer it may take, the less is lost; no more time is taken than was allowed."""
    points = {name: [(probe_base(SHAPE, Settings())[0], 8.0)] for name in ("one", "other")}
    shapes = dict.fromkeys(points, SHAPE)
    losses = []
    for nanoseconds in (14_000, 16_000, 20_000, 40_000):
        chosen = timed("saten-augmented", shapes, points, nanoseconds, Settings())
        assert sum(each.nanoseconds for each in chosen.values()) <= nanoseconds
        losses.append(sum(each.loss for each in chosen.values()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.3 * losses[0]
    with pytest.raises(ExportError, match=r"at least 0.01 ms for a token"):
        timed("saten-augmented", shapes, points, 3000, Settings())
