"""Fits are timed by fitting: the parts of the arithmetic that are not the clock's."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgekit.compress.layerwise import speed
from edgekit.compress.layerwise.speed import Fit, FitTime, fit_time, products_per_s


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_KNOWN", {})


def clock(monkeypatch: pytest.MonkeyPatch, law: Any) -> list[tuple[int, int]]:
    """Fits take what a law says; the shapes that were timed."""
    seen: list[tuple[int, int]] = []

    def seconds(fit: Fit, shape: tuple[int, int], rounds: int) -> float | None:
        seen.append(shape)
        found: float | None = law(*shape, rounds)
        return found

    monkeypatch.setattr(speed, "_seconds", seconds)
    return seen


@pytest.mark.parametrize("power", [2.0, 2.5, 3.0])
def test_what_grows_by_a_power_is_foretold_exactly(power: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def law(rows: int, columns: int, rounds: int) -> float:
        return float((1 + 0.25 * (rounds - 1)) * 1e-7 * math.sqrt(rows * columns) ** power)

    seen = clock(monkeypatch, law)
    fit = Fit("saten-augmented", (4096, 4096), 4.0, {"rounds": 4})
    found = fit_time(fit)
    assert found.first_s == pytest.approx(law(4096, 4096, 1))
    assert found.seconds(4) == pytest.approx(law(4096, 4096, 4))
    assert max(seen) < (4096, 4096)


def test_a_small_matrix_is_timed_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, lambda rows, columns, rounds: 1e-3 if (rows, columns) == (96, 40) else 5.0)
    assert fit_time(Fit("dense", (96, 40), 4.0, {"rounds": 1})) == FitTime(1e-3, 0.0)


def test_sizes_that_are_too_small_for_the_method_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, lambda rows, columns, rounds: None if columns < 512 else 0.5)
    assert fit_time(Fit("saten", (512, 512), 4.0, {"rounds": 1})).first_s == pytest.approx(0.5)
    clock(monkeypatch, lambda rows, columns, rounds: None)
    assert fit_time(Fit("svd", (512, 512), 0.1, {"rounds": 1})) == FitTime(0.0, 0.0)


def test_every_kind_of_fit_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = clock(monkeypatch, lambda rows, columns, rounds: 1e-3)
    fit = Fit("dense", (96, 40), 4.0, {"rounds": 1})
    fit_time(fit)
    count = len(seen)
    fit_time(fit)
    assert len(seen) == count


def test_real_fits_take_time() -> None:
    found = fit_time(Fit("saten-augmented", (64, 64), 5.0, {"rounds": 2}))
    assert 0 < found.first_s < 30
    assert products_per_s(64) > 1e6
