"""Several drafters as one: the first that has something to say is heard."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.runtime.drafting.interface import DraftContext, Drafter, Proposal


class CombinedDrafter:
    """Implements Drafter over others, asked in their order; the proposal's source names the one that made it.

    Meant for an n-gram drafter that only speaks up where a long text repeats, before draft heads that always do.
    """

    name = "combined"
    instant = False

    def __init__(self, drafters: Sequence[Drafter]) -> None:
        """Takes the drafters over. Raises ValueError where there are none."""
        if not drafters:
            raise ValueError("a combination needs at least one drafter")
        self._drafters = tuple(drafters)
        self.longest = max(drafter.longest for drafter in drafters)

    def propose(self, context: DraftContext, count: int) -> Proposal:
        """See Drafter.propose."""
        for drafter in self._drafters:
            proposal = drafter.propose(context, min(count, drafter.longest))
            if proposal.tokens:
                return proposal
        return Proposal((), (), self.name)

    def close(self) -> None:
        """See Drafter.close."""
        for drafter in self._drafters:
            drafter.close()
