"""Drafting in a conversation: drafters, who may speak when, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgekit.runtime.drafting.acceptance import Source
from edgekit.runtime.drafting.controller import Offer
from edgekit.runtime.drafting.interface import DraftContext, Drafter, Proposal
from edgekit.runtime.drafting.statistics import DraftStatistics

NO_DRAFT = Proposal((), (), "")


class Policy(Protocol):
    """Chooses among drafts: the controller, or a fixed length."""

    @property
    def plain_s(self) -> float | None:
        """Seconds of a plain step now; None before the first."""

    def choose(self, offers: Sequence[Offer]) -> tuple[Offer, int] | None:
        """The offer to take and how many tokens of it; None for a plain step."""

    def record(self, source: Source | None, drafted: int, accepted: int, draft_s: float, step_s: float) -> None:
        """A step was made; see Controller.record."""

    def observe(self, source: Source, drafted: int, accepted: int) -> None:
        """A draft was not verified, and so many of its tokens came true."""

    def why_off(self) -> str | None:
        """Why nothing is drafted now; None where something is, or nothing can be said yet."""


class Drafting:
    """Makes a proposal for each step, and notes what became of it.

    It lives as long as a conversation, for the policy to know what was lost and won.

    Attributes:
        total: statistics of all generations.
    """

    def __init__(self, drafters: Sequence[Drafter], policy: Policy) -> None:
        """Takes the drafters over. Those that are instant are asked at each step, the others when they are chosen."""
        self._drafters = tuple(drafters)
        self._policy = policy
        self.total = DraftStatistics()
        self._current = self.total
        self._proposal = NO_DRAFT
        #: A proposal that was not verified, and the number of tokens that it was to follow.
        self._watched: tuple[Proposal, int] | None = None

    def begin(self) -> DraftStatistics:
        """A generation begins; its statistics."""
        self._watched = None
        self._current = DraftStatistics(plain_step_s=self._policy.plain_s)
        return self._current

    def propose(self, context: DraftContext, most: int) -> Proposal:
        """What the next step is to verify: at most `most` tokens, or none.

        Raises:
            SessionError, DoesNotFit: see Drafter.propose.
        """
        self._watch(context.tokens)
        offers: list[Offer] = []
        made: list[Proposal | None] = []
        for drafter in self._drafters if most > 0 else ():
            count = min(most, drafter.longest)
            proposal = drafter.propose(context, count) if drafter.instant else None
            if proposal is None:
                offers.append(Offer(Source(drafter.name), count))
            elif proposal.tokens:
                offers.append(Offer(Source(proposal.source, proposal.grade), len(proposal.tokens), made=True))
            else:
                continue
            made.append(proposal)
        choice = self._policy.choose(offers)
        self._proposal = NO_DRAFT
        for offer, proposal in zip(offers, made, strict=True):
            if choice is not None and offer == choice[0]:
                self._proposal = self._made(proposal, offer.source, context, choice[1])
            elif proposal is not None and self._watched is None:
                self._watched = proposal, len(context.tokens)
        return self._proposal

    def record(self, accepted: int, draft_s: float, step_s: float) -> None:
        """The step was made that the last proposal was for, and so many of its tokens were accepted.

        Args:
            draft_s: seconds that `propose` took; step_s: of the model and of judging.
        """
        proposal, drafted = self._proposal, len(self._proposal.tokens)
        source = Source(proposal.source, proposal.grade) if drafted else None
        self._policy.record(source, drafted, accepted, draft_s, step_s)
        plain_s, off = self._policy.plain_s, self._policy.why_off()
        for statistics in (self._current, self.total):
            statistics.add(proposal.source, drafted, accepted, draft_s, step_s, plain_s)
            statistics.off = off

    def close(self) -> None:
        """Free what the drafters hold."""
        for drafter in self._drafters:
            drafter.close()

    def _made(self, proposal: Proposal | None, source: Source, context: DraftContext, count: int) -> Proposal:
        if proposal is not None:
            return proposal.first(count)
        drafter = next(each for each in self._drafters if each.name == source.name)
        return drafter.propose(context, count)

    def _watch(self, tokens: Sequence[int]) -> None:
        """Compare a proposal that was not verified with what came instead, as soon as that decides it."""
        if self._watched is None:
            return
        proposal, start = self._watched
        came = tokens[start : start + len(proposal.tokens)]
        right = next((i for i, (a, b) in enumerate(zip(proposal.tokens, came, strict=False)) if a != b), len(came))
        if right < len(came) or len(came) == len(proposal.tokens):
            self._policy.observe(Source(proposal.source, proposal.grade), len(proposal.tokens), right)
            self._watched = None
