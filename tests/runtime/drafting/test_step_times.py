from __future__ import annotations

import random

import pytest

from edgekit.runtime.drafting.step_times import StepTimes


def test_nothing_is_known_at_first() -> None:
    times = StepTimes()
    assert times.typical(1) is None
    assert times.count(1) == 0


def test_a_typical_time_is_no_outlier() -> None:
    times = StepTimes()
    for seconds in (0.010, 0.010, 0.5, 0.010, 0.010, 0.010):
        times.add(1, seconds)
    typical = times.typical(1)
    assert typical is not None
    assert typical == pytest.approx(0.010, rel=0.07)


def test_noise_is_averaged() -> None:
    times, dice = StepTimes(), random.Random(0)
    for _ in range(100):
        times.add(1, 0.01 * dice.lognormvariate(0, 0.1))
        times.add(4, 0.02 * dice.lognormvariate(0, 0.1))
    assert times.typical(1) == pytest.approx(0.01, rel=0.08)
    assert times.typical(4) == pytest.approx(0.02, rel=0.08)


def test_what_slows_one_size_slows_the_others() -> None:
    """The plain step was last measured when the context was short; now everything takes twice as long."""
    times = StepTimes()
    for _ in range(10):
        times.add(1, 0.010)
        times.add(4, 0.015)
    for step in range(60):
        times.add(4, 0.015 * (1 + step / 60))
    for _ in range(10):
        times.add(4, 0.030)
    assert times.typical(1) == pytest.approx(0.020, rel=0.1)


def test_a_size_that_was_not_measured_for_long_is_forgotten() -> None:
    times = StepTimes()
    times.add(3, 0.5)
    for _ in range(600):
        times.add(1, 0.01)
    assert times.typical(3) is None
    assert times.count(3) == 0


def test_estimates_of_sizes_that_were_not_measured() -> None:
    times = StepTimes()
    for _ in range(3):
        times.add(1, 0.010)
        times.add(3, 0.012)
        times.add(5, 0.020)
    expected, worst = times.estimates(7, 0.010)
    assert expected[:6] == pytest.approx([0.0, 0.010, 0.011, 0.012, 0.016, 0.020])
    assert worst[:6] == pytest.approx(expected[:6])
    # Beyond: along the last two, hoped to be no more than a quarter of a step each, at the worst half of one.
    assert expected[6:] == pytest.approx([0.0225, 0.025])
    assert worst[6:] == pytest.approx([0.025, 0.030])


def test_with_plain_steps_alone_more_is_hoped_to_cost_little() -> None:
    times = StepTimes()
    times.add(1, 0.010)
    times.add(1, 0.010)
    expected, worst = times.estimates(3, 0.010)
    assert expected == pytest.approx([0.0, 0.010, 0.0102, 0.0104])
    assert worst == pytest.approx([0.0, 0.010, 0.015, 0.020])


def test_a_single_sample_may_have_been_bad_luck() -> None:
    times = StepTimes()
    for _ in range(3):
        times.add(1, 0.010)
    times.add(2, 0.500)
    assert times.estimates(2, 0.010)[0][2] == pytest.approx(0.0102)
    assert times.estimates(2, 0.010)[1][2] == pytest.approx(0.500)
    times.add(2, 0.500)
    assert times.estimates(2, 0.010)[0][2] == pytest.approx(0.500)
