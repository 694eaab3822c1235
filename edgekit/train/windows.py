"""Which windows of the text each step sees: a function of seed and step alone, so that a resumed run sees the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]


class Windows:
    """Shuffled windows of context + 1 tokens, every epoch cut at another offset.

    Args:
        tokens: the training text as one row of ids.
        context: inputs of a window; the token after the last input is its last target.
    """

    def __init__(self, tokens: Tokens, context: int, batch: int, seed: int) -> None:
        self.tokens, self.context, self.batch, self.seed = tokens, context, batch, seed
        # One window less than fit, so that every offset below `context` leaves room.
        self.per_epoch = (len(tokens) - 1) // context - 1
        self.steps_per_epoch = self.per_epoch // batch
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def step(self, step: int) -> npt.NDArray[np.int64]:
        """The windows of a step counted from 0, [batch, context + 1]."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            offset = random.integers(self.context)
            self._order = (epoch, offset + self.context * random.permutation(self.per_epoch))
        starts = self._order[1][place * self.batch : (place + 1) * self.batch]
        windows: npt.NDArray[np.int64] = self.tokens[starts[:, None] + np.arange(self.context + 1)].astype(np.int64)
        return windows


def consecutive_windows(tokens: Tokens, context: int, count: int | None = None) -> npt.NDArray[np.int64]:
    """`count` windows spread evenly over the text, or all whole ones: [N, context + 1], each target once."""
    whole = (len(tokens) - 1) // context
    chosen = np.arange(whole) if count is None or count >= whole else np.linspace(0, whole - 1, count).astype(np.int64)
    windows: npt.NDArray[np.int64] = tokens[chosen[:, None] * context + np.arange(context + 1)].astype(np.int64)
    return windows
