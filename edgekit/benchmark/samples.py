"""Repeated measurements of one quantity."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Median, mean, standard deviation (None for a single sample), smallest, and the samples in their order."""
    return {
        "median": statistics.median(samples),
        "mean": statistics.fmean(samples),
        "stdev": statistics.stdev(samples) if len(samples) > 1 else None,
        "min": min(samples),
        "samples": list(samples),
    }
