"""Whether it fits."""

from __future__ import annotations

from edgekit.plan.estimate import Estimate

FITS, TIGHT, DOES_NOT_FIT = "fits", "tight", "does not fit"


def verdict(needed: Estimate, available: float) -> str:
    """`FITS` if even the upper bound does, `TIGHT` if what is expected does, else `DOES_NOT_FIT`."""
    if needed.high <= available:
        return FITS
    return TIGHT if needed.value <= available else DOES_NOT_FIT
