"""What draft heads read along a text: the features of its last positions."""

from __future__ import annotations

import numpy as np

from edgekit import contract
from edgekit.runtime.session import Features

#: Positions that are kept: as many as draft heads read at once.
FEATURES_KEPT = contract.DRAFT_POSITIONS


class FeatureTrail:
    """Features [P, F] of the last positions of a text, as far as they are known, at most `FEATURES_KEPT` of them."""

    def __init__(self) -> None:
        # The trail moves through a buffer of twice its size, and back to its beginning when it comes to the end.
        self._buffer: Features | None = None
        self._start = self._stop = 0

    @property
    def known(self) -> Features | None:
        """float32 [P, F], oldest first, until the next change; None when nothing is known of the last position."""
        return None if self._buffer is None or self._start == self._stop else self._buffer[self._start : self._stop]

    def extend(self, features: Features, positions: int) -> None:
        """So many positions were added, of which the last ones have these features [K, F], which are copied."""
        if self._buffer is None:
            self._buffer = np.empty((2 * FEATURES_KEPT, features.shape[1]), np.float32)
        features = features[-FEATURES_KEPT:]
        if len(features) < positions:
            self._start = self._stop = 0  # there is a gap
        if self._stop + len(features) > len(self._buffer):
            kept = self._buffer[max(self._start, self._stop - FEATURES_KEPT + len(features)) : self._stop].copy()
            self._buffer[: len(kept)] = kept
            self._start, self._stop = 0, len(kept)
        self._buffer[self._stop : self._stop + len(features)] = features
        self._stop += len(features)
        self._start = max(self._start, self._stop - FEATURES_KEPT)

    def drop(self, positions: int) -> None:
        """The last positions were taken back."""
        self._stop = max(self._start, self._stop - positions)
