from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from edgekit.errors import SessionError
from edgekit.runtime.drafting.cp import CPDrafter
from edgekit.runtime.drafting.interface import DraftContext
from edgekit.runtime.sampling import SamplingOptions
from tests.runtime.drafting.enumeration import context
from tests.runtime.drafting.fake_draft import FakeDraftSession, random_cp

GREEDY, PLAIN = SamplingOptions(), SamplingOptions(temperature=1.0)
RULES = ["conditional", "component"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_at_most_as_many_as_asked_for_and_as_there_are(rule: Any, count: int) -> None:
    drafter = CPDrafter(FakeDraftSession(*random_cp(3, 2, 5)), rule)
    assert (drafter.longest, drafter.name) == (3, "cp")
    proposal = drafter.propose(context(PLAIN, np.random.default_rng(0)), count)
    assert len(proposal.tokens) == len(proposal.distributions) == min(count, 3)
    assert proposal.source == "cp"


@pytest.mark.parametrize("rule", RULES)
def test_tokens_are_ids_of_the_draft_vocabulary(rule: Any) -> None:
    ids = [3, 40, 41, 900, 5000]
    log_weights, probabilities = random_cp(3, 2, 5)
    drafter = CPDrafter(FakeDraftSession(log_weights, probabilities, ids), rule)
    greedy = drafter.propose(context(GREEDY, np.random.default_rng(0)), 3)
    if rule == "component":
        assert list(greedy.tokens) == [ids[i] for i in probabilities[:, log_weights.argmax()].argmax(-1)]
    assert greedy.distributions == (None,) * 3
    for seed in range(20):
        proposal = drafter.propose(context(PLAIN, np.random.default_rng(seed)), 3)
        for token, q in zip(proposal.tokens, proposal.distributions, strict=True):
            assert q is not None
            assert token in q.ids
            assert q.ids.tolist() == ids
            assert q.probabilities.sum() == pytest.approx(1.0, abs=1e-12)


def test_the_graph_is_given_the_features_and_the_last_token() -> None:
    session = FakeDraftSession(*random_cp(3, 2, 5))
    features = np.array([[9.0, 9.0, 9.0], [1.5, -2.0, 0.25]], np.float32)
    CPDrafter(session).propose(DraftContext([7, 8, 9], features, GREEDY, np.random.default_rng(0)), 2)
    ((given, token, noise),) = session.calls
    assert given.tolist() == features[1:].tolist()
    assert token.tolist() == [9]
    assert noise is None


def test_greedy_drafts_from_the_heaviest_components() -> None:
    session = FakeDraftSession(*random_cp(2, 5, 4), components=2)
    generator = np.random.default_rng(0)
    state = generator.bit_generator.state
    CPDrafter(session).propose(context(GREEDY, generator), 2)
    noise = session.calls[0][2]
    assert noise is not None
    assert not noise.any()
    assert set(session.chosen(noise[0])) == set(np.argsort(session.log_weights)[-2:])
    assert generator.bit_generator.state == state


def test_components_are_drawn_by_their_weights() -> None:
    """One of three: a chi-square test with 2 degrees of freedom; 13.816 is exceeded once in a thousand."""
    weights = np.array([0.5, 0.3, 0.2])
    session = FakeDraftSession(np.log(weights), random_cp(1, 3, 4)[1], components=1)
    drafter, generator = CPDrafter(session), np.random.default_rng(2)
    draws = 3000
    for _ in range(draws):
        drafter.propose(context(PLAIN, generator), 1)
    counts = Counter(int(session.chosen(noise[0])[0]) for _, _, noise in session.calls if noise is not None)
    assert sum((counts[i] - draws * w) ** 2 / (draws * w) for i, w in enumerate(weights)) < 13.816


@pytest.mark.parametrize("rule", RULES)
def test_a_seed_repeats_a_draft(rule: Any) -> None:
    drafter = CPDrafter(FakeDraftSession(*random_cp(3, 5, 50), components=3), rule)
    drafts = [drafter.propose(context(PLAIN, np.random.default_rng(seed)), 3).tokens for seed in (1, 1, 2)]
    assert drafts[0] == drafts[1] != drafts[2]


def test_refusals() -> None:
    session = FakeDraftSession(*random_cp(3, 2, 5))
    with pytest.raises(SessionError, match="conditional, component\nit is 'prior'"):
        CPDrafter(session, "prior")  # type: ignore[arg-type]
    drafter = CPDrafter(session)
    with pytest.raises(SessionError, match="features"):
        drafter.propose(DraftContext([1], None, GREEDY, np.random.default_rng(0)), 1)
    drafter.close()
    assert session.closed
