"""Drafting and verifying with real random numbers; the seed is fixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgekit.runtime.drafting import cp_mixture
from edgekit.runtime.drafting.cp import CPDrafter
from edgekit.runtime.drafting.distributions import unfiltered
from edgekit.runtime.drafting.interface import DraftContext, Proposal
from edgekit.runtime.drafting.verify import verify
from edgekit.runtime.sampling import SamplingOptions, sample
from tests.runtime.drafting.enumeration import PROMPT, Target, context
from tests.runtime.drafting.fake_draft import FakeDraftSession

PLAIN = SamplingOptions(temperature=1.0)
#: Exceeded once in a thousand, by degrees of freedom (NIST/SEMATECH e-Handbook, table 1.3.6.7.4).
CRITICAL = {11: 31.264, 15: 37.697}
#: Three components that each repeat a token, so that the second depends on the first.
LOG_WEIGHTS = np.log([0.4, 0.35, 0.25])
PROBABILITIES = np.stack([np.full((3, 4), 0.05) + 0.8 * np.eye(3, 4)] * 2)


def chi_square(
    propose: Callable[[DraftContext], Proposal], options: SamplingOptions, draws: int = 2000
) -> tuple[float, int]:
    """Statistic and degrees of freedom of the first two tokens, drafted, verified, and completed where one came out."""
    model, generator = Target(4, seed=3), np.random.default_rng(11)
    counts: Counter[tuple[int, int]] = Counter()
    for _ in range(draws):
        proposal = propose(context(options, generator))
        verdict = verify(model.rows(proposal.tokens), proposal, options, PROMPT, generator)
        block = (*proposal.tokens[: verdict.accepted], verdict.token)
        if len(block) == 1:
            history = [*PROMPT, *block]
            block = (*block, sample(model.logits(history), options, history, generator))
        counts[block[0], block[1]] += 1
    wanted = model.joint(2, options)
    assert all(wanted[block] > 0 for block in counts)
    statistic = sum((counts[t] - draws * p) ** 2 / (draws * p) for t, p in np.ndenumerate(wanted) if p)
    return statistic, np.count_nonzero(wanted) - 1


@pytest.mark.parametrize("rule", ["conditional", "component"])
@pytest.mark.parametrize("options", [PLAIN, SamplingOptions(temperature=0.8, top_p=0.9)], ids=str)
def test_what_comes_out_follows_the_model(rule: Any, options: SamplingOptions) -> None:
    """Two of three components are computed, drawn anew for each draft."""
    drafter = CPDrafter(FakeDraftSession(LOG_WEIGHTS, PROBABILITIES, components=2), rule)
    statistic, freedom = chi_square(lambda c: drafter.propose(c, 2), options)
    assert statistic < CRITICAL[freedom]


def test_a_bias_is_seen() -> None:
    """The control: tokens drawn by way of a component, verified as if they were independent."""
    marginals = tuple(unfiltered(row) for row in np.exp(LOG_WEIGHTS) @ PROBABILITIES)

    def biased(c: DraftContext) -> Proposal:
        _, tokens = cp_mixture.ancestral_draft(LOG_WEIGHTS, PROBABILITIES, c.generator)
        return Proposal(tokens, marginals, "test")

    statistic, freedom = chi_square(biased, PLAIN)
    assert statistic > 2 * CRITICAL[freedom]
