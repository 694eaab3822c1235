"""Variants of an operator that tests run: all of a few, else enough for every two choices that go together."""

from __future__ import annotations

import itertools

from edgekit.ops.spec import OpSpec

#: So many are all run.
FEW = 16


def pairs(values: dict[str, int]) -> set[tuple[tuple[str, int], tuple[str, int]]]:
    """Every two choices that a variant makes."""
    return set(itertools.combinations(values.items(), 2))


def covering(spec: OpSpec) -> list[dict[str, int]]:
    """Variants with every pair of choices, the one with most new pairs first."""
    left = spec.combinations()
    if len(left) <= FEW:
        return left
    found, open_pairs = [], set().union(*map(pairs, left))
    while open_pairs:
        best = max(left, key=lambda values: len(pairs(values) & open_pairs))
        found.append(best)
        open_pairs -= pairs(best)
    return found
