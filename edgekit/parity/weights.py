"""Whether the matrices that a bundle stores as codes are the checkpoint's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.parity.dequantized import DequantizedWeights, StoredMatrix
from edgekit.parity.report import WeightCheck
from edgekit.parity.tolerance import WEIGHTS, WEIGHTS_AS_COMPRESSED, WEIGHTS_CONTRACTED, WEIGHTS_PER_OUTPUT

#: Rows weaker than this share of the mean row are compared with it instead of themselves.
_WEAK_ROW = 0.01


def weight_check(name: str, matrix: StoredMatrix, weights: DequantizedWeights) -> WeightCheck:
    """Compare one stored matrix with the checkpoint's weight of that name."""
    total, row = relative_errors(matrix.load(), np.asarray(weights.original(name), np.float32))
    if matrix.as_compressed:
        tolerance = WEIGHTS_CONTRACTED if matrix.contracted else WEIGHTS_AS_COMPRESSED
        return WeightCheck(name, matrix.bits, total, row, tolerance)
    tolerances = WEIGHTS_PER_OUTPUT if matrix.per_output else WEIGHTS
    return WeightCheck(name, matrix.bits, total, row, tolerances[matrix.bits])


def relative_errors(found: npt.NDArray[Any], original: npt.NDArray[Any]) -> tuple[float, float]:
    """‖found - original‖ / ‖original‖ of a matrix [out, in], and the largest of any row."""
    if found.shape != original.shape:
        raise ValueError(f"compared matrices must have the same shape: {found.shape} and {original.shape}")
    with np.errstate(all="ignore"):
        errors = np.sqrt(np.square(found - original).sum(axis=1, dtype=np.float64))
        norms = np.sqrt(np.square(original).sum(axis=1, dtype=np.float64))
        if not errors.any():
            return 0.0, 0.0
        total = np.linalg.norm(errors) / np.linalg.norm(norms)
        rows = errors / np.maximum(norms, _WEAK_ROW * norms.mean())
    return float(total), float(rows.max())
