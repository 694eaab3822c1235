from __future__ import annotations

import numpy as np
import pytest

from edgekit.runtime.drafting.combined import CombinedDrafter
from edgekit.runtime.drafting.cp import CPDrafter
from edgekit.runtime.drafting.ngram import NGramDrafter
from edgekit.runtime.sampling import SamplingOptions
from tests.runtime.drafting.enumeration import context
from tests.runtime.drafting.fake_draft import FakeDraftSession, random_cp

NEW = [1, 2, 3, 4, 5]
SHORT = [1, 2, 9, 3, 1, 2]
LONG = [1, 2, 3, 7, 8, 9, 1, 2, 3]


@pytest.fixture
def session() -> FakeDraftSession:
    return FakeDraftSession(*random_cp(2, 3, 5))


@pytest.fixture
def combined(session: FakeDraftSession) -> CombinedDrafter:
    return CombinedDrafter([NGramDrafter(longest=6, shortest_match=3), CPDrafter(session)])


@pytest.mark.parametrize(
    ("tokens", "source", "length"), [(NEW, "cp", 2), (SHORT, "cp", 2), (LONG, "ngram", 5)], ids=["new", "short", "long"]
)
def test_copies_where_much_repeats_else_the_heads(
    combined: CombinedDrafter, session: FakeDraftSession, tokens: list[int], source: str, length: int
) -> None:
    proposal = combined.propose(context(SamplingOptions(), np.random.default_rng(0), tokens), 5)
    assert (proposal.source, len(proposal.tokens)) == (source, length)
    assert len(session.calls) == (source == "cp"), "heads that are not heard are not run"


def test_it_drafts_as_many_as_its_longest(combined: CombinedDrafter, session: FakeDraftSession) -> None:
    assert (combined.longest, combined.name) == (6, "combined")
    combined.close()
    assert session.closed


def test_nothing_to_say() -> None:
    alone = CombinedDrafter([NGramDrafter()])
    proposal = alone.propose(context(SamplingOptions(), np.random.default_rng(0), NEW), 4)
    assert (proposal.tokens, proposal.distributions) == ((), ())
    with pytest.raises(ValueError, match="at least one"):
        CombinedDrafter([])
