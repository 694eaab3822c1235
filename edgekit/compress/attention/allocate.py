"""Sharing a cache between layers, keys and values: every number goes where its loss is largest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

#: Components come in steps, so that rows suit vector instructions.
STEP = 8

#: A layer and a side: (0, "key").
Place = tuple[int, str]


@dataclass(frozen=True)
class Spectrum:
    """One side of one layer.

    Attributes:
        losses: expected loss of leaving out each component, nats per token, largest first.
        numbers: numbers in the cache per component.
        step: components are given in multiples of this (the last step may be smaller).
        weight: factor on the losses when places are compared.
    """

    losses: Tensor
    numbers: int
    step: int = 1
    weight: float = 1.0

    def tail(self, count: int) -> float:
        """Expected loss with `count` components kept."""
        return float(self.losses[count:].sum())


def pooled(spectra: Mapping[Place, Spectrum], budget: int) -> dict[Place, int]:
    """Components per place so that all together use at most `budget` numbers: greedily by loss avoided per number.

    Each place gets one step at least. As losses are sorted, greedy is optimal up to the last step.
    """
    counts = {place: min(s.step, len(s.losses)) for place, s in spectra.items()}
    left = budget - sum(counts[place] * s.numbers for place, s in spectra.items())
    gains = []
    for place, s in spectra.items():
        for start in range(counts[place], len(s.losses), s.step):
            size = min(s.step, len(s.losses) - start)
            gains.append((s.weight * float(s.losses[start : start + size].sum()) / (size * s.numbers), size, place))
    full: set[Place] = set()
    for _, size, place in sorted(gains, key=lambda gain: (-gain[0], gain[2])):
        price = size * spectra[place].numbers
        if place in full or price > left:
            full.add(place)  # its later steps are worth less
            continue
        counts[place] += size
        left -= price
    return counts


def expected_loss(spectra: Mapping[Place, Spectrum], counts: Mapping[Place, int]) -> float:
    """Expected increase of the loss, nats per token."""
    return sum(s.tail(counts[place]) for place, s in spectra.items())
