"""A compressed matrix: its pieces, their exact size, and how far their sum is from the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.compress.blockwise import Floats
from edgekit.compress.saten.pieces import Piece, piece_from
from edgekit.compress.saten.storage import Arrays
from edgekit.compress.saten.whitening import Metric, relative


@dataclass(frozen=True)
class CompressedMatrix:
    """Ŵ [N out, K in] = Σ pieces.

    Attributes:
        method: the name of what made it.
        shape: [N, K].
        pieces: the summands.
        weighted_error: √ of (Σ g (ΔW M ΔWᵀ)) over that of W, in the metric it was fitted in.
        plain_error: ‖ΔW‖_F / ‖W‖_F.
        loss: ½ Σ g (ΔW M ΔWᵀ): nats per token where the metric holds measured moments and gradients.
    """

    method: str
    shape: tuple[int, int]
    pieces: tuple[Piece, ...]
    weighted_error: float
    plain_error: float
    loss: float

    @property
    def nbytes(self) -> int:
        """Of all arrays: codes, scales, zero points, values and positions."""
        return sum(piece.nbytes for piece in self.pieces)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / (self.shape[0] * self.shape[1])

    def reconstruct(self) -> Floats:
        """Ŵ, float32 [N, K]."""
        return sum((piece.dense() for piece in self.pieces), np.zeros(self.shape, np.float32))

    def arrays(self) -> Arrays:
        """What is stored: "<piece>.<array>" → array."""
        return {f"{k}.{name}": array for k, piece in enumerate(self.pieces) for name, array in piece.arrays().items()}

    def record(self) -> dict[str, Any]:
        """All but the arrays, for JSON."""
        return {
            "method": self.method,
            "shape": list(self.shape),
            "pieces": [piece.record() for piece in self.pieces],
            "weighted_error": self.weighted_error,
            "plain_error": self.plain_error,
            "loss": self.loss,
        }


def compressed(
    method: str, weight: Tensor, metric: Metric, pieces: Sequence[Piece], whole: float | None = None
) -> CompressedMatrix:
    """Pieces that approximate W [N, K], measured as they are stored; `whole` is the metric's square of W if known."""
    other = sum((torch.from_numpy(piece.dense()).double() for piece in pieces), torch.zeros(weight.shape).double())
    weight = weight.double()
    error = weight - other
    norm = float(weight.norm())
    plain = float(error.norm()) / norm if norm else 0.0
    shape = (weight.shape[0], weight.shape[1])
    square = metric.squared(error)
    weighted = relative(square, metric.squared(weight) if whole is None else whole)
    return CompressedMatrix(method, shape, tuple(pieces), weighted, plain, 0.5 * square)


def compressed_from(record: Mapping[str, Any], arrays: Arrays) -> CompressedMatrix:
    """The inverse of `record` and `arrays`."""
    pieces = []
    for k, entry in enumerate(record["pieces"]):
        prefix = f"{k}."
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        pieces.append(piece_from(entry, own))
    rows, columns = record["shape"]
    errors = (record["weighted_error"], record["plain_error"], record["loss"])
    return CompressedMatrix(record["method"], (rows, columns), tuple(pieces), *errors)
