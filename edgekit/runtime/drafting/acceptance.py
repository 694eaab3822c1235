"""How often drafted tokens are accepted, by source and position, with the past slowly forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

#: Chance of a token of which nothing is known.
NEUTRAL = 0.6
#: Drafts that a prior counts for at first, and the share of it and of what was seen that each draft makes forgotten.
_WEIGHT, _FORGET = 4.0, 1 / 32
#: A prior says no more than this of a position beyond those it speaks of.
_MOST = 0.98


class Source(NamedTuple):
    """Where a draft comes from: a drafter's name, and how good it says the draft is (see Proposal.grade)."""

    name: str
    grade: int = 0


@dataclass
class _Seen:
    """Tokens judged and kept at each position, and what the prior counts for.

    Of a refused draft, those after the first refusal were not judged.
    """

    judged: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    prior: list[float] = field(default_factory=list)


class Acceptance:
    """Chance of each position, given that all before it were accepted."""

    def __init__(self, priors: Mapping[Source, Sequence[float]] | None = None) -> None:
        """`priors`: chances by position from before, such as those a head reached in training; else NEUTRAL."""
        self._priors = priors or {}
        self._seen: dict[Source, _Seen] = {}

    def add(self, source: Source, drafted: int, accepted: int) -> None:
        """Of `drafted` tokens the first `accepted` were kept."""
        seen = self._seen.setdefault(source, _Seen())
        for place in range(min(accepted + 1, drafted)):
            if place == len(seen.judged):
                seen.judged.append(0.0)
                seen.kept.append(0.0)
                seen.prior.append(_WEIGHT)
            seen.prior[place] *= 1 - _FORGET
            seen.judged[place] += 1 - _FORGET * seen.judged[place]
            seen.kept[place] += (place < accepted) - _FORGET * seen.kept[place]

    def chances(self, source: Source, count: int) -> list[float]:
        """Chances of the first `count` positions: what was seen, drawn towards the prior.

        What was seen at a position also moves what is expected of the next, of which less was seen.
        """
        prior = self._priors.get(source) or (NEUTRAL,)
        seen = self._seen.get(source)
        found: list[float] = []
        for place in range(count):
            base = prior[min(place, len(prior) - 1)]
            if found:
                before = prior[min(place - 1, len(prior) - 1)]
                base = min(base * found[-1] / before, _MOST) if before > 0 else 0.0
            if seen is not None and place < len(seen.judged):
                weight = seen.prior[place]
                base = (base * weight + seen.kept[place]) / (weight + seen.judged[place])
            found.append(base)
        return found
