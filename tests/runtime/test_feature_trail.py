"""The trail of features, against a plain list of positions."""

from __future__ import annotations

import numpy as np

from edgekit.runtime.feature_trail import FEATURES_KEPT, FeatureTrail


def test_it_is_what_a_list_holds() -> None:
    rng, trail, number = np.random.default_rng(0), FeatureTrail(), 0.0
    assert trail.known is None
    expected: list[float | None] = []  # None where nothing is known
    for _ in range(3000):
        least = 0
        if rng.random() < 0.3 and expected:
            gone = int(rng.integers(0, min(5, len(expected)) + 1))
            trail.drop(gone)
            del expected[len(expected) - gone :]
        else:
            positions = int(rng.choice([1, 2, 5, 100, 200], p=[0.5, 0.3, 0.15, 0.03, 0.02]))
            known = positions if rng.random() < 0.9 else int(rng.integers(1, positions + 1))
            features = number + np.arange(known, dtype=np.float32)[:, None] + np.zeros(3, np.float32)
            trail.extend(features, positions)
            expected += [None] * (positions - known) + features[:, 0].tolist()
            features[:] = np.nan  # copies were made
            least = min(known, FEATURES_KEPT)
            number += known
        tail: list[float] = []
        for value in reversed(expected[-FEATURES_KEPT:]):
            if value is None:
                break
            tail.insert(0, value)
        found = [] if trail.known is None else trail.known[:, 0].tolist()
        # After tokens were taken back it may know less than it once did, never anything else.
        assert found == tail[len(tail) - len(found) :]
        assert len(found) >= least


def test_what_was_dropped_is_not_known() -> None:
    trail = FeatureTrail()
    trail.extend(np.ones((3, 2), np.float32), 3)
    trail.drop(2)
    assert trail.known is not None
    assert trail.known.shape == (1, 2)
    trail.drop(9)
    assert trail.known is None
