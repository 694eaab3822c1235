"""What the decode loop asks of a drafter: the next tokens, and the distribution each was drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgekit.runtime.sampling import SamplingOptions


@dataclass(frozen=True)
class Distribution:
    """A distribution over few tokens.

    Attributes:
        ids: int64 [k], ascending.
        probabilities: float64 [k], above 0, sum 1.
    """

    ids: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Proposal:
    """Drafted tokens.

    Attributes:
        tokens: what is proposed to follow the context; may be empty, and fewer than were asked for.
        distributions: what each was drawn from, given the context, the tokens before it and nothing that depends on
            it; None for a token that was no chance at all (all mass on it).
        source: name of the drafter that made it.
        grade: how much speaks for it, by the drafter's own measure: statistics are kept for each grade.
    """

    tokens: tuple[int, ...]
    distributions: tuple[Distribution | None, ...]
    source: str
    grade: int = 0

    def first(self, count: int) -> Proposal:
        """Its first `count` tokens."""
        return replace(self, tokens=self.tokens[:count], distributions=self.distributions[:count])


@dataclass(frozen=True)
class DraftContext:
    """What there is to draft from.

    Attributes:
        tokens: all tokens so far; the last is chosen but not in the decoder's cache yet.
        features: float32 [P, F], the decoder's features at the last positions, as far as they are known, P >= 1: the
            last of them chose the last token. None where the bundle has none.
        sampling: how tokens are chosen; a drafter filters its distribution alike.
        generator: of the random numbers that drafting takes.
    """

    tokens: Sequence[int]
    features: npt.NDArray[np.float32] | None
    sampling: SamplingOptions
    generator: np.random.Generator


class Drafter(Protocol):
    """Proposes tokens. It keeps nothing that a rollback of the decoder would make wrong."""

    @property
    def name(self) -> str:
        """Of the kind: "cp", "ngram", "model"."""

    @property
    def longest(self) -> int:
        """Most tokens it proposes at once."""

    @property
    def instant(self) -> bool:
        """Whether a proposal takes no time to speak of, so that it can be made before it is known to be wanted."""

    def propose(self, context: DraftContext, count: int) -> Proposal:
        """At most `count` tokens (1 <= count <= longest) to follow `context.tokens`."""

    def close(self) -> None:
        """Free what it holds."""
