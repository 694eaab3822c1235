"""How much a quantised matrix is expected to cost, and which matrices are therefore kept at 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from edgekit.compress.blockwise import Floats


@dataclass(frozen=True)
class Candidate:
    """One unit at the low bit width.

    Attributes:
        cost: expected increase of the loss, in nats per token.
        extra_bytes: what keeping it at 8 bits adds.
    """

    cost: float
    extra_bytes: int


def expected_cost(error: Floats, moments: Floats, gradients: Floats) -> float:
    """½ Σ_n g_n (ΔW M ΔWᵀ)_nn, in nats per token; see `calibration` for the source.

    Args:
        error: ΔW, float32 [N, K].
        moments: M, float32 [K, K].
        gradients: g, float32 [N].
    """
    spread: npt.NDArray[np.float64] = np.einsum("nk,nk->n", error @ moments, error, dtype=np.float64)
    return float(0.5 * (gradients.astype(np.float64) * spread).sum())


def forced(unit: str, patterns: tuple[str, ...]) -> bool:
    """Whether a unit matches one of the shell patterns of units that are kept at 8 bits in any case."""
    return any(fnmatchcase(unit, pattern) for pattern in patterns)


def units_at_8_bits(candidates: Mapping[str, Candidate], allowed_cost: float) -> set[str]:
    """The units to keep at 8 bits so that the rest together is expected to cost at most `allowed_cost`.

    Greedy by cost per byte saved: the unit whose low bit width costs most for what it saves is given up first. The
    cost of 8 bits is taken as 1/256 of that of 4 (the square of the step's ratio, 1/16).
    """
    kept: set[str] = set()
    remaining = sum(candidate.cost for candidate in candidates.values())
    order = sorted(candidates, key=lambda unit: candidates[unit].cost / candidates[unit].extra_bytes, reverse=True)
    for unit in order:
        if remaining <= allowed_cost:
            break
        kept.add(unit)
        remaining -= candidates[unit].cost * 255 / 256
    return kept
