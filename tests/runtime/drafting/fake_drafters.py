"""Drafters that are right, wrong, or either, as a test wants it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from edgekit.runtime.drafting.interface import Distribution, DraftContext, Proposal


class FakeDrafter:
    """Proposes what a function of the context says; notes what it was asked for."""

    def __init__(
        self,
        say: Callable[[Sequence[int], int], Sequence[int]],
        *,
        name: str = "fake",
        longest: int = 4,
        instant: bool = False,
        drawn: bool = False,
    ) -> None:
        """`drawn`: tokens are said to come from a distribution that gives half to them and half to token 0."""
        self.say, self.name, self.longest, self.instant, self.drawn = say, name, longest, instant, drawn
        self.asked: list[tuple[int, int]] = []
        self.features: list[np.ndarray | None] = []
        self.closed = False

    def propose(self, context: DraftContext, count: int) -> Proposal:
        assert 1 <= count <= self.longest
        self.asked.append((len(context.tokens), count))
        self.features.append(None if context.features is None else context.features.copy())
        tokens = tuple(self.say(context.tokens, count))[:count]
        return Proposal(tokens, tuple(self._distribution(token, context) for token in tokens), self.name)

    def _distribution(self, token: int, context: DraftContext) -> Distribution | None:
        if not self.drawn or context.sampling.greedy or token == 0:
            return None
        return Distribution(np.array([0, token]), np.array([0.5, 0.5]))

    def close(self) -> None:
        self.closed = True


def known(text: Sequence[int], start: int) -> Callable[[Sequence[int], int], Sequence[int]]:
    """Says how a text goes on that stands after `start` tokens."""
    return lambda tokens, count: text[len(tokens) - start : len(tokens) - start + count]


def wrong(text: Sequence[int], start: int, vocab: int = 50) -> Callable[[Sequence[int], int], Sequence[int]]:
    """Never says how it goes on."""
    right = known(text, start)
    return lambda tokens, count: [(token + 1) % vocab for token in right(tokens, count)] or [0] * count


def moody(text: Sequence[int], start: int, seed: int, vocab: int = 50) -> Callable[[Sequence[int], int], Sequence[int]]:
    """Says up to so many tokens, right up to some place."""
    dice, right = random.Random(seed), known(text, start)

    def say(tokens: Sequence[int], count: int) -> Sequence[int]:
        said = list(right(tokens, dice.randint(0, count)))
        if said and dice.random() < 0.6:
            place = dice.randrange(len(said))
            said[place] = (said[place] + dice.randrange(1, vocab)) % vocab
        return said

    return say
