"""What steps of each size take, from times that are noisy and drift together."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

#: A size that was not measured for so many steps is forgotten.
_LIFETIME = 512
#: How far a step moves the common drift, and the most that it may be off (of its logarithm): what is more is chance.
_DRIFT, _CLIP = 0.15, 0.4
#: Measurements of a size of which the mean is taken, before those that follow tell of the drift.
_FIRST = 6
#: Steps without a measurement of a size after which a new one moves its typical time by half.
_AGE = 100
#: What a unit of size is expected to add where nothing larger was measured, in plain steps: at least, at most.
_LEAST_SLOPE, _MOST_SLOPE = 0.02, 0.25
#: What it may add at the worst, in plain steps.
_WORST_SLOPE = 0.5

Known = list[tuple[int, float]]


@dataclass
class _Size:
    """Of one size: the typical logarithm of seconds without the drift, how often and when it was measured."""

    typical: float
    count: int
    measured: int


class StepTimes:
    """Seconds by size: log t(size) = typical(size) + drift.

    The drift is shared, since what makes one step slower (a longer context, other programs, heat) makes all slower: the
    time of a size that was not taken for a while is told from those that were.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, _Size] = {}
        self._drift = 0.0
        self._added = 0

    def add(self, size: int, seconds: float) -> None:
        """A step of that size took so long."""
        self._added += 1
        x = math.log(max(seconds, 1e-9))
        found = self._sizes.get(size)
        if found is None:
            self._sizes[size] = _Size(x - self._drift, 1, self._added)
            return
        off = min(max(x - found.typical - self._drift, -_CLIP), _CLIP)
        age = self._added - found.measured
        # What was measured a moment ago tells of the drift, what was not for long tells of itself.
        own = max(1 / (found.count + 1) if found.count < _FIRST else 0.0, age / (age + _AGE))
        drift = _DRIFT * (1 - own) * off
        self._drift += drift
        found.typical += own * (off - drift)
        found.count += 1
        found.measured = self._added
        for old in [each for each, its in self._sizes.items() if self._added - its.measured >= _LIFETIME]:
            del self._sizes[old]

    def count(self, size: int) -> int:
        """How often it was measured."""
        found = self._sizes.get(size)
        return 0 if found is None else found.count

    def typical(self, size: int) -> float | None:
        """Seconds that a step of that size takes now; None where it was not measured lately."""
        found = self._sizes.get(size)
        return None if found is None else math.exp(found.typical + self._drift)

    def estimates(self, most: int, unit: float) -> tuple[list[float], list[float]]:
        """Seconds expected, and seconds at the worst, of sizes 0 to `most`.

        A size that was measured less than twice is expected to take what those around it make hope for: what was not
        tried should be. At the worst each unit of size beyond those measured costs much.

        Args:
            unit: seconds of a plain step.
        """
        known: Known = [(0, 0.0)]
        known += [(size, math.exp(its.typical + self._drift)) for size, its in sorted(self._sizes.items())]
        found = dict(known)
        expected, worst = [], []
        for size in range(most + 1):
            measured = found.get(size)
            if measured is not None and (size == 0 or self.count(size) > 1):
                expected.append(measured)
                worst.append(measured)
                continue
            others = known if measured is None else [each for each in known if each[0] != size]
            hoped = _around(others, size, _LEAST_SLOPE * unit, _MOST_SLOPE * unit)
            expected.append(hoped if measured is None else min(measured, hoped))
            worst.append(_around(others, size, _WORST_SLOPE * unit, math.inf) if measured is None else measured)
        return expected, worst


def _around(known: Known, size: int, least: float, most: float) -> float:
    """By the sizes measured below and above it, or along the last two below with the slope held within limits."""
    place = bisect_left(known, (size, -math.inf))
    below, seconds = known[place - 1]
    if place < len(known):
        above, more = known[place]
        return seconds + (more - seconds) * (size - below) / (above - below)
    slope = least
    if place > 2:  # known[0] is no measurement
        before, less = known[place - 2]
        slope = min(max((seconds - less) / (below - before), least), most)
    return seconds + slope * (size - below)
