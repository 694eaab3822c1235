"""Numbers as they are shown, and axes: expected values written by hand."""

from __future__ import annotations

import math
import random

import pytest

from edgekit.report.numbers import bound, change, percent, plain, quantity
from edgekit.report.scale import linear, logarithmic


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (40.24, "40.2"), (0.003788, "0.00379"), (1388.8, "1,390"), (9.996, "10.0"), (0.0005, "0.000500"),
        (-2.5, "−2.50"), (1.73e-6, "1.73e−6"), (math.inf, "inf"), (123456789, "123,000,000"),
    ],
)  # fmt: skip
def test_three_digits_that_count(value: float, shown: str) -> None:
    assert plain(value) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.0402, "s", "40.2 ms"), (1.3888, "s", "1.39 s"), (0.99999, "s", "1.00 s"), (3.2e-5, "s", "32.0 µs"),
        (4000, "s", "4,000 s"), (158_206_208, "B", "158 MB"), (40, "B", "40 B"), (0, "B", "0 B"),
        (46_080, "B", "46.1 kB"),
        (40.7e9, "B/s", "40.7 GB/s"), (26.84, "tokens/s", "26.8 tokens/s"), (121, "", "121"), (0.00443, "", "0.00443"),
        (0, "s", "0 s"),
    ],
)  # fmt: skip
def test_units_with_the_prefix_that_fits(value: float, unit: str, shown: str) -> None:
    assert quantity(value, unit).replace("\N{NO-BREAK SPACE}", " ") == shown


def test_shares_changes_and_bounds() -> None:
    assert percent(0.97172, 4) == "97.17\N{NO-BREAK SPACE}%"
    assert percent(0.00001) == "< 0.01\N{NO-BREAK SPACE}%"
    assert percent(0) == "0\N{NO-BREAK SPACE}%"
    assert change(1.01923) == "+1.92\N{NO-BREAK SPACE}%"
    assert change(0.98) == "−2.00\N{NO-BREAK SPACE}%"
    assert [bound(0.0001), bound(0.03), bound(90.0), bound(1e-9)] == ["0.0001", "0.03", "90", "1e-09"]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([57.0, 12.0], [0, 20, 40, 60]), ([1.0], [0, 0.2, 0.4, 0.6, 0.8, 1.0]), ([0.0], [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ([0.0041, 0.005], [0, 0.001, 0.002, 0.003, 0.004, 0.005]), ([-3.0, 8.0], [-5, -2.5, 0, 2.5, 5, 7.5, 10]),
    ],
)  # fmt: skip
def test_ticks_of_a_linear_axis(values: list[float], ticks: list[float]) -> None:
    assert list(linear(values).ticks) == pytest.approx(ticks)


def test_any_linear_axis_holds_its_values_and_counts_in_ones_twos_and_fives() -> None:
    draw = random.Random(7)
    for _ in range(300):
        values = [draw.uniform(-1, 1) * 10 ** draw.uniform(-6, 6) for _ in range(draw.randint(1, 5))]
        for tight in (False, True):
            scale = linear(values, from_zero=draw.random() < 0.5, tight=tight)
            slack = 1e-6 * (scale.high - scale.low)  # far less than a pixel
            assert scale.low <= min(values) + slack
            assert scale.high >= max(values) - slack
            assert all(scale.low - slack <= tick <= scale.high + slack for tick in scale.ticks)
            assert 1 <= len(scale.ticks) <= 8
            if len(scale.ticks) > 1:
                step = scale.ticks[1] - scale.ticks[0]
                assert (
                    min(abs(step / 10 ** math.floor(math.log10(step) + 1e-9) - nice) for nice in (1, 2, 2.5, 5)) < 1e-6
                )
                labels = [scale.label(tick) for tick in scale.ticks]
                assert len(set(labels)) == len(labels)
            assert 0 <= scale.place(values[0]) <= 1


def test_a_logarithmic_axis() -> None:
    scale = logarithmic([2e-7, 3e-5])
    assert (scale.low, scale.high) == (pytest.approx(1e-7), pytest.approx(1e-4))
    assert [scale.label(tick) for tick in scale.ticks] == ["10⁻⁷", "10⁻⁶", "10⁻⁵", "10⁻⁴"]
    assert scale.place(1e-6) == pytest.approx(1 / 3)
    assert scale.place(0) == 0
    assert scale.place(1) == 1
    assert logarithmic([]).ticks
    assert len(logarithmic([1e-30, 1e30]).ticks) <= 8
