"""Drafts by copying: what followed the last few tokens when they occurred before (prompt lookup decoding).

Costs no model, and is right where a text repeats its context: summaries, edits, code, quotations.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from edgekit.runtime.drafting.interface import DraftContext, Proposal

#: Tokens compared to notice that a context is not the one that was indexed, only longer.
_CHECKED = 32
#: Lengths of a match by which proposals are told apart: the longer, the likelier is it to go on.
GRADES = (1, 2, 3, 4, 6, 8, 16)


class NGramDrafter:
    """Implements Drafter over the context's own tokens; what it proposes is no chance.

    Every occurrence of n tokens is kept by what they are, for each length n that is looked up, so that a proposal takes
    as many look-ups as there are lengths, however long the context is.
    """

    name = "ngram"
    instant = True

    def __init__(self, longest: int = 8, shortest_match: int = 2, longest_match: int = 4) -> None:
        """
        Args:
            longest: most tokens proposed at once.
            shortest_match, longest_match: how many of the last tokens must have occurred before; longer is tried first.

        Raises:
            ValueError: a length is below 1, or the shortest above the longest.
        """
        if longest < 1 or not 1 <= shortest_match <= longest_match:
            raise ValueError(f"lengths must be 1 <= {shortest_match} <= {longest_match} and 1 <= {longest}")
        self.longest = longest
        self._lengths = tuple(range(longest_match, shortest_match - 1, -1))
        self._indexed = array("q")
        #: Of the n tokens that end before a place: the last such place below the context's end.
        self._places: dict[tuple[int, ...], int] = {}

    def propose(self, context: DraftContext, count: int) -> Proposal:
        """See Drafter.propose. Empty where the last tokens occur for the first time."""
        tokens = context.tokens
        place = self._earlier(tokens)
        if place is None:
            return Proposal((), (), self.name)
        period = len(tokens) - place
        copied = list(tokens[place : place + count])
        # The copy may reach into itself, as where one line is repeated over and over.
        while len(copied) < count:
            copied.append(copied[len(copied) - period])
        return Proposal(tuple(copied), (None,) * count, self.name, _grade(tokens, place))

    def close(self) -> None:
        """See Drafter.close."""
        self._forget()

    def _earlier(self, tokens: Sequence[int]) -> int | None:
        """The place after the most recent earlier occurrence of the longest end of `tokens` that has one."""
        if not self._continues(tokens):
            self._forget()
        self._index(tokens)
        for length in self._lengths:
            end = tuple(tokens[-length:])
            place = self._places.get(end)
            if place is None:
                continue
            if tuple(tokens[place - length : place]) == end:
                return place
            # Changed before the tokens that were compared.
            self._forget()
            return self._earlier(tokens)
        return None

    def _continues(self, tokens: Sequence[int]) -> bool:
        """Whether `tokens` seem to begin with those indexed: no cut, no other prompt.

        The whole comparison would cost more than a proposal. What this misses is found where it matters: a place is
        compared with the tokens that it is used for.
        """
        known = len(self._indexed)
        start = max(0, known - _CHECKED)
        return list(self._indexed[start:]) == list(tokens[start:known])

    def _index(self, tokens: Sequence[int]) -> None:
        """Add every occurrence that has a token after it and is not known yet."""
        widest = self._lengths[0]
        first = len(self._indexed)
        self._indexed.extend(tokens[first:])
        for place in range(max(first, 1), len(tokens)):
            gram = tuple(tokens[max(0, place - widest) : place])
            for length in self._lengths:
                if length <= place:
                    self._places[gram[len(gram) - length :]] = place

    def _forget(self) -> None:
        self._indexed = array("q")
        self._places = {}


def _grade(tokens: Sequence[int], place: int) -> int:
    """The largest of GRADES that is not longer than what ends alike at `place` and at the end of `tokens`."""
    alike, most = 0, min(GRADES[-1], place)
    while alike < most and tokens[place - 1 - alike] == tokens[-1 - alike]:
        alike += 1
    return max(grade for grade in GRADES if grade <= alike)
