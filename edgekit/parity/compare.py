"""How far two tensors, or two distributions over tokens, are apart.

Everything is computed in float64, a few rows at a time, so that a large vocabulary takes little memory. A value that
is not finite makes the measure not finite, and no tolerance accepts that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_ROWS = 16


@dataclass(frozen=True)
class Difference:
    """How a tensor differs from its reference.

    Attributes:
        cosine: the smallest cosine of any position's vector with its reference.
        max_abs_error: the largest |found - reference| of any element.
        relative_error: ‖found - reference‖ / ‖reference‖ over the whole tensor.
    """

    cosine: float = 1.0
    max_abs_error: float = 0.0
    relative_error: float = 0.0

    def worst(self, other: Difference) -> Difference:
        """The worse of both in each measure; what is not a number stays so."""
        return Difference(
            float(np.minimum(self.cosine, other.cosine)),
            float(np.maximum(self.max_abs_error, other.max_abs_error)),
            float(np.maximum(self.relative_error, other.relative_error)),
        )


def difference(found: Array, reference: Array) -> Difference:
    """Compare two tensors of the same shape [positions, features]; a vector equals another if both are zero."""
    if found.shape != reference.shape:
        raise ValueError(f"compared tensors must have the same shape: {found.shape} and {reference.shape}")
    cosine, largest, error_power, power = 1.0, 0.0, 0.0, 0.0
    with np.errstate(all="ignore"):  # what overflows here shows in the result
        for start in range(0, len(found), _ROWS):
            a = found[start : start + _ROWS].astype(np.float64)
            b = reference[start : start + _ROWS].astype(np.float64)
            error = a - b
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            same = ~error.any(axis=1)
            cosines = np.where(same, 1.0, (a * b).sum(axis=1) / np.where(norms == 0, np.inf, norms))
            cosine = float(np.minimum(cosine, cosines.min()))
            largest = float(np.maximum(largest, np.abs(error).max()))
            error_power += float((error * error).sum())
            power += float((b * b).sum())
        relative = 0.0 if error_power == 0 else float(np.sqrt(np.float64(error_power) / np.float64(power)))
    return Difference(cosine, largest, relative)


def positions_first(cache: Array, axis: int) -> Array:
    """A cache tensor [1, …] whose tokens lie along `axis` as one vector per position, [T, …]."""
    vectors: Array = np.moveaxis(cache[0], axis - 1, 0).reshape(cache.shape[axis], -1)
    return vectors


def divergence(found: Array, reference: Array) -> Floats:
    """KL(reference ‖ found) in nats for each position of two tensors of logits [positions, vocabulary]."""
    result = np.empty(len(found))
    with np.errstate(all="ignore"):
        for start in range(0, len(found), _ROWS):
            p = _log_softmax(reference[start : start + _ROWS])
            q = _log_softmax(found[start : start + _ROWS])
            # Rounding can make the divergence of equals a little negative.
            result[start : start + _ROWS] = np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0)
    return result


def agreement(found: Array, reference: Array) -> npt.NDArray[np.bool_]:
    """For each position whether both logits [positions, vocabulary] have their maximum at the same token."""
    return np.asarray(found.argmax(axis=1) == reference.argmax(axis=1))


def _log_softmax(logits: Array) -> Floats:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
