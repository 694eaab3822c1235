"""A draft graph without an engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def random_cp(tokens: int, rank: int, vocabulary: int, seed: int = 0, scale: float = 2.0) -> tuple[np.ndarray, ...]:
    """log weights [r] and probabilities [n, r, D] of a mixture whose components differ."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((tokens, rank, vocabulary)) * scale
    weights = rng.dirichlet(np.full(rank, 2.0))
    return np.log(weights), np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)


class FakeDraftSession:
    """Implements DraftSession as edgekit.contract describes it, the same for every context."""

    def __init__(
        self,
        log_weights: np.ndarray,
        probabilities: np.ndarray,
        vocabulary: Sequence[int] | None = None,
        components: int | None = None,
    ) -> None:
        self.log_weights, self.probabilities = log_weights, probabilities
        self.tokens, self.rank, size = probabilities.shape
        self.components = components or self.rank
        self.vocabulary = np.arange(size) if vocabulary is None else np.array(vocabulary, np.int64)
        self.calls: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
        self.closed = False
        self.window, self.kept, self.present = 0, 0, None

    def chosen(self, noise: np.ndarray | None) -> np.ndarray:
        """The components that are computed, by the largest log weight and noise."""
        if noise is None:
            return np.arange(self.rank)
        return np.argsort(-(self.log_weights + noise), kind="stable")[: self.components]

    def draft(
        self, features: np.ndarray, token: np.ndarray, noise: np.ndarray | None, past: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        assert past is None
        assert (features.dtype, token.dtype, token.shape) == (np.float32, np.int64, (1,))
        assert (noise is None) == (self.components == self.rank)
        assert noise is None or (noise.dtype, noise.shape) == (np.float32, (1, self.rank))
        self.calls.append((features, token, noise))
        kept = self.chosen(None if noise is None else noise[0])
        weights = np.exp(self.log_weights[kept])
        log_weights = np.log(weights / weights.sum()).astype(np.float32)
        return log_weights[None], self.probabilities[None, :, kept].astype(np.float32)

    def close(self) -> None:
        self.closed = True
