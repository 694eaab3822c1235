"""How long fits take on this machine: small matrices of the same proportions are fitted, by the methods themselves.

Seconds are those of the processor, which do not depend on what else the machine does meanwhile.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from edgekit.compress.layerwise.plan import settings_from
from edgekit.compress.saten.decompose import compress_matrix
from edgekit.compress.saten.whitening import metric
from edgekit.errors import ExportError

#: A kind of fit is timed at growing sizes until the next size would take longer than this.
LIMIT_S = 0.7
#: Longer side of the smallest matrix, and what sides are multiples of, so that they hold whole blocks.
SMALLEST, STEP = 128, 64
#: Powers of a side that time may grow with, up to products with moments, N K². Small matrices show less than the least,
#: since there the steps of each column count; matrices of SmolLM2-135M grew by about this.
GROWTH = (1.8, 3.0)

Shape = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """A kind of fit: W [N, K] by a method, at so many bits per weight, with settings as a plan has them."""

    method: str
    shape: Shape
    bits: float
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class FitTime:
    """Seconds of one thread: of a fit with one round, and of each round more."""

    first_s: float
    more_s: float

    def seconds(self, rounds: int) -> float:
        """Of a fit with so many rounds."""
        return self.first_s + self.more_s * (rounds - 1)


def fit_time(fit: Fit) -> FitTime:
    """Measured at the largest size that `LIMIT_S` allows, and scaled up from there; 0 where nothing can be fitted."""
    kept = (fit.method, fit.shape, round(fit.bits, 2), json.dumps(fit.settings, sort_keys=True))
    if kept not in _KNOWN:
        _KNOWN[kept] = _measured(fit)
    return _KNOWN[kept]


_KNOWN: dict[tuple[str, Shape, float, str], FitTime] = {}


def _measured(fit: Fit) -> FitTime:
    with _one_thread():
        steps = list(_ladder(fit))
        if not steps:
            return FitTime(0.0, 0.0)
        shape, first = steps[-1]
        scale = math.sqrt(math.prod(fit.shape) / math.prod(shape)) ** _growth(steps)
        rounds = min(3, settings_from(fit.settings).rounds)
        more = (_seconds(fit, shape, rounds) or first) - first if rounds > 1 else 0.0
    return FitTime(scale * first, scale * max(0.0, more) / max(1, rounds - 1))


def products_per_s(width: int) -> float:
    """Multiply-adds a second of float32 products with a matrix [width, width], of one thread times torch's threads."""
    side, count, spent, threads = min(max(width, SMALLEST), 1024), 0, 0.0, torch.get_num_threads()
    a = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    with _one_thread():
        _ = a @ a
        while spent < 0.1:
            started = time.thread_time()
            _ = a @ a
            spent, count = spent + time.thread_time() - started, count + 1
    return count * side**3 * threads / spent


def _ladder(fit: Fit) -> Iterator[tuple[Shape, float]]:
    """Sizes and the seconds of one round, from small to as large as time allows."""
    longer, steps = SMALLEST, list[tuple[Shape, float]]()
    if not _KNOWN:
        _seconds(fit, _smaller(fit.shape, longer), 1)  # the first call of all is slow
    while True:
        shape = _smaller(fit.shape, longer)
        found = _seconds(fit, shape, 1)
        if found is not None:
            steps.append((shape, found))
            yield shape, found
        if shape == fit.shape or (found is not None and len(steps) > 1 and found * 2 ** _growth(steps) > LIMIT_S):
            return
        longer *= 2


def _smaller(shape: Shape, longer: int) -> Shape:
    """The shape, its longer side so long, in whole steps; itself where it is no larger."""
    if max(shape) <= longer:
        return shape
    share = longer / max(shape)
    rows, inputs = (min(side, max(STEP, STEP * round(share * side / STEP))) for side in shape)
    return rows, inputs


def _growth(steps: Sequence[tuple[Shape, float]]) -> float:
    """The power of a side that time grows with, by the last two sizes."""
    low, high = GROWTH
    if len(steps) < 2:
        return high
    (before, less), (last, seconds) = steps[-2:]
    sides = math.sqrt(math.prod(last) / math.prod(before))
    return min(high, max(low, math.log(seconds / max(less, 1e-9)) / math.log(sides))) if sides > 1 else high


def _seconds(fit: Fit, shape: Shape, rounds: int) -> float | None:
    """Of one fit, its metric included; None where the method cannot make a matrix of that size so small."""
    rows, inputs = shape
    draw = torch.Generator().manual_seed(rows + inputs)
    weight = torch.randn(rows, inputs, generator=draw)
    # Inputs as they are: a few directions hold most of what there is.
    seen = torch.randn(inputs, inputs, generator=draw) / torch.arange(1, inputs + 1)
    moments, outputs = seen @ seen.T, torch.rand(rows, generator=draw)
    settings = settings_from({**fit.settings, "rounds": rounds})
    started = time.thread_time()
    try:
        compress_matrix(
            weight,
            fit.method,
            budget=int(fit.bits * rows * inputs / 8),
            measured=metric(weight, moments, outputs),
            settings=settings,
        )
    except ExportError:
        return None
    return time.thread_time() - started


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
