"""From numbers to places on an axis, with ticks at numbers that people count in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from edgekit.report.numbers import plain

#: Steps between ticks, within a decade.
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low, high: the numbers at its ends.
        ticks: where it is marked, ascending, within its ends.
        logarithmic: whether equal distances are equal ratios.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high one; numbers beyond an end are put at it."""
        if self.logarithmic:
            share = (math.log10(max(value, self.low)) - math.log10(self.low)) / math.log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))

    def label(self, tick: float) -> str:
        """The tick's number, with as many decimals as tell it from its neighbours."""
        if self.logarithmic:
            exponent = round(math.log10(tick))
            return plain(tick, 1) if -3 <= exponent <= 4 else "10" + _superscript(exponent)
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else abs(tick) or 1.0
        decimals = next((n for n in range(9) if math.isclose(round(step, n), step, rel_tol=1e-6)), 9)
        return f"{tick:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def linear(values: Iterable[float], *, from_zero: bool = True, tight: bool = False, most_ticks: int = 6) -> Scale:
    """A scale that holds all values.

    Args:
        from_zero: begin at 0, as lengths of bars must.
        tight: end where the values end, and not at the next tick.
    """
    found = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(found), max(found)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = (0.0, 1.0) if high == 0 else (min(low, 0.0), max(high, 0.0))
    step = _step((high - low) / max(1, most_ticks - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(step * n for n in range(first, last + 1))
    if tight:
        inside = tuple(tick for tick in ticks if low - step * 1e-9 <= tick <= high + step * 1e-9)
        return Scale(low, high, inside or ticks[:1])
    return Scale(ticks[0], ticks[-1], ticks)


def logarithmic(values: Iterable[float], *, most_ticks: int = 7) -> Scale:
    """A scale of powers of ten that holds all positive values."""
    found = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    first = math.floor(math.log10(min(found)) + 1e-9)
    last = math.ceil(math.log10(max(found)) - 1e-9)
    if first == last:
        first -= 1
    every = math.ceil((last - first) / max(1, most_ticks - 1))
    ticks = tuple(10.0**n for n in range(first, last + 1, every))
    return Scale(10.0**first, 10.0**last, ticks, logarithmic=True)


def _step(least: float) -> float:
    decade = 10.0 ** math.floor(math.log10(least))
    return next(decade * step for step in _STEPS if decade * step >= least * (1 - 1e-9))


def _superscript(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
