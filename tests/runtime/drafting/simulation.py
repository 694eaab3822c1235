"""A machine and a text without either: steps cost what is said, drafts are right as often as is said."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgekit.runtime.drafting.acceptance import Source
from edgekit.runtime.drafting.controller import Controller, Offer

HEADS = Source("cp")


@dataclass
class World:
    """What the controller does not know.

    Attributes:
        step: seconds of a step of that many positions.
        draft: seconds of drafting that many tokens.
        chance: that a token is right, by how many tokens there are already, its source and its position.
        offers: what can be drafted, by how many tokens there are already and what the dice say.
        noise: of the logarithm of every time. drift: factor of all times, by tokens.
        held_up: share of steps that take ten times as long.
    """

    step: Callable[[int], float]
    draft: Callable[[int], float] = lambda k: 0.002
    chance: Callable[[int, Source, int], float] = lambda tokens, source, place: 0.0
    offers: Callable[[int, random.Random], Sequence[Offer]] = lambda tokens, dice: [Offer(HEADS, 8)]
    noise: float = 0.05
    drift: Callable[[int], float] = lambda tokens: 1.0
    held_up: float = 0.0


@dataclass
class Outcome:
    """Seconds that went by, seconds that plain decoding would have taken on average, and steps by tokens drafted."""

    spent_s: float = 0.0
    plain_s: float = 0.0
    tokens: int = 0
    lengths: Counter[int] = field(default_factory=Counter)

    @property
    def speed(self) -> float:
        """As a multiple of plain decoding's."""
        return self.plain_s / self.spent_s


def simulate(
    world: World, tokens: int, *, seed: int = 0, controller: Controller | None = None, start: int = 0
) -> Outcome:
    """Decode that many tokens."""
    dice = random.Random(seed)
    controller = controller or Controller()
    done = Outcome()

    def taken(seconds: float) -> float:
        factor = world.drift(start + done.tokens) * math.exp(dice.gauss(0, world.noise))
        return seconds * factor * (10 if dice.random() < world.held_up else 1)

    while done.tokens < tokens:
        at = start + done.tokens
        choice = controller.choose(world.offers(at, dice))
        source, drafted, draft_s = None, 0, 0.0
        if choice is not None:
            offer, drafted = choice
            source = offer.source
            draft_s = 0.0 if offer.made else taken(world.draft(drafted))
        accepted = 0
        while source is not None and accepted < drafted and dice.random() < world.chance(at, source, accepted):
            accepted += 1
        step_s = taken(world.step(drafted + 1))
        controller.record(source, drafted, accepted, draft_s, step_s)
        done.spent_s += draft_s + step_s
        # Of what holds steps up, plain decoding meets as much for each of its steps.
        done.plain_s += (accepted + 1) * world.step(1) * world.drift(at) * (1 + 9 * world.held_up)
        done.tokens += accepted + 1
        done.lengths[drafted] += 1
    return done


def best(world: World, chance: float, most: int = 8) -> tuple[float, int]:
    """Speed of the best length, over plain decoding, and that length."""
    found = [(1.0, 0)]
    for k in range(1, most + 1):
        tokens = sum(chance**j for j in range(k + 1))
        found.append((tokens * world.step(1) / (world.step(k + 1) + world.draft(k)), k))
    return max(found)
