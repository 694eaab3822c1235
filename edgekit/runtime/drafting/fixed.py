"""Drafts of one length, whatever they cost."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.runtime.drafting.acceptance import Source
from edgekit.runtime.drafting.controller import Offer
from edgekit.runtime.drafting.step_times import StepTimes


class FixedLength:
    """Implements Policy: always the first offer, with so many tokens where it has them."""

    def __init__(self, count: int) -> None:
        """`count`: at least 1."""
        self._count = count
        self._times = StepTimes()

    @property
    def plain_s(self) -> float | None:
        """See Policy.plain_s: only steps without an offer are plain."""
        return self._times.typical(1)

    def choose(self, offers: Sequence[Offer]) -> tuple[Offer, int] | None:
        """See Policy.choose."""
        return (offers[0], min(self._count, offers[0].most)) if offers else None

    def record(self, source: Source | None, drafted: int, accepted: int, draft_s: float, step_s: float) -> None:
        """See Policy.record."""
        self._times.add(drafted + 1, step_s)

    def observe(self, source: Source, drafted: int, accepted: int) -> None:
        """See Policy.observe: nothing is learned."""

    def why_off(self) -> str | None:
        """See Policy.why_off: it never is."""
        return None
