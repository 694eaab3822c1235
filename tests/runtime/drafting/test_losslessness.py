"""What comes out is what the model alone would give: by enumeration of every draft and every verdict, to 1e-12."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from edgekit.runtime.drafting import cp_mixture
from edgekit.runtime.drafting.cp import CPDrafter
from edgekit.runtime.drafting.distributions import unfiltered
from edgekit.runtime.drafting.interface import Distribution, Proposal
from edgekit.runtime.sampling import SamplingOptions
from tests.runtime.drafting.enumeration import PROMPT, Target, context, drafted_joint, enumerate_chance, outcomes
from tests.runtime.drafting.fake_draft import FakeDraftSession, random_cp

V, N, R = 4, 2, 3
PLAIN = SamplingOptions(temperature=1.0)
OPTIONS = [
    PLAIN,
    SamplingOptions(temperature=0.6),
    SamplingOptions(temperature=1.7, top_k=2),
    SamplingOptions(temperature=1.0, top_p=0.8),
    SamplingOptions(temperature=0.8, min_p=0.25),
    SamplingOptions(temperature=1.2, top_k=3, top_p=0.9, min_p=0.05, repetition_penalty=1.4),
    SamplingOptions(),
]


@pytest.fixture(autouse=True)
def _enumerated(monkeypatch: pytest.MonkeyPatch) -> None:
    enumerate_chance(monkeypatch)


def difference(
    target: Target, propose: Any, options: SamplingOptions = PLAIN, noise: np.ndarray | None = None
) -> float:
    """Largest error of any probability of the next N + 1 tokens."""
    found = drafted_joint(target, propose, N + 1, options, noise)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    return float(np.abs(found - target.joint(N + 1, options)).max())


@pytest.mark.parametrize("vocabulary", [(0, 1, 2, 3), (0, 2, 3)], ids=["whole", "trimmed"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("rule", ["conditional", "component"])
def test_cp_drafts(rule: Any, options: SamplingOptions, vocabulary: tuple[int, ...]) -> None:
    session = FakeDraftSession(*random_cp(N, R, len(vocabulary)), vocabulary)
    drafter = CPDrafter(session, rule)
    assert difference(Target(V), lambda branch: drafter.propose(context(options, branch), N), options) < 1e-12


@pytest.mark.parametrize("left_out", range(R))
@pytest.mark.parametrize("rule", ["conditional", "component"])
@pytest.mark.parametrize("options", [PLAIN, OPTIONS[3]], ids=str)
def test_a_truncated_mixture(rule: Any, options: SamplingOptions, left_out: int) -> None:
    """Whatever set of components is drawn: it is drawn before any token, so each set must be lossless by itself."""
    session = FakeDraftSession(*random_cp(N, R, V), components=R - 1)
    drafter = CPDrafter(session, rule)
    noise = np.where(np.arange(R) == left_out, -100.0, 0.0)
    propose = lambda branch: drafter.propose(context(options, branch), N)  # noqa: E731
    assert difference(Target(V), propose, options, noise) < 1e-12
    assert set(session.chosen(noise)) == set(range(R)) - {left_out}


def ancestral(branch: Any, rule: str) -> Proposal:
    """Tokens drawn by way of a component, with one of three claims about what they were drawn from."""
    log_weights, probabilities = random_cp(N, R, V)
    component, tokens = cp_mixture.ancestral_draft(log_weights, probabilities, branch)
    claims = {
        "conditionals": list(cp_mixture.conditionals(log_weights, probabilities, tokens))[:N],
        "component": list(probabilities[:, component]),
        "prior marginals": list(np.exp(log_weights) @ probabilities),
    }
    return Proposal(tokens, tuple(unfiltered(claim) for claim in claims[rule]), "test")


@pytest.mark.parametrize("rule", ["conditionals", "component"])
def test_ancestral_drafts(rule: str) -> None:
    assert difference(Target(V), lambda branch: ancestral(branch, rule)) < 1e-12


def test_prior_marginals_are_biased() -> None:
    """The control: what a token is distributed like on its own is not what it was drawn from, given those before it."""
    assert difference(Target(V), lambda branch: ancestral(branch, "prior marginals")) > 1e-3


def drawn(tables: list[np.ndarray], branch: Any) -> Proposal:
    """Tokens from tables of probabilities, one for each place."""
    found = [unfiltered(table) for table in tables]
    return Proposal(tuple(int(branch.one_of(q.ids, q.probabilities)) for q in found), tuple(found), "test")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    "tables",
    [
        [[0.97, 0.01, 0.01, 0.01], [0.01, 0.01, 0.01, 0.97]],
        [[0.25, 0.25, 0.25, 0.25], [1e-12, 1 - 2e-12, 1e-12, 0]],
        [[0, 0.5, 0.5, 0], [0.5, 0, 0, 0.5]],
    ],
    ids=["too-certain", "tiny", "other-support"],
)
def test_badly_calibrated_drafts(tables: list[list[float]], options: SamplingOptions) -> None:
    assert difference(Target(V), lambda branch: drawn([np.array(t) for t in tables], branch), options) < 1e-12


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("tokens", [(), (0,), (0, 2), (3, 3)])
def test_point_masses(tokens: tuple[int, ...], options: SamplingOptions) -> None:
    assert difference(Target(V), lambda _: Proposal(tokens, (None,) * len(tokens), "test"), options) < 1e-12


def test_a_draft_that_is_the_model() -> None:
    """p = q: everything is accepted, and where rounding refuses nevertheless there is something to draw from."""
    target = Target(V)

    def propose(branch: Any) -> Proposal:
        first = Distribution(np.arange(V), target.next((), PLAIN))
        token = int(branch.one_of(first.ids, first.probabilities))
        second = Distribution(np.arange(V), target.next((token,), PLAIN))
        return Proposal((token, int(branch.one_of(second.ids, second.probabilities))), (first, second), "test")

    assert difference(target, propose) < 1e-12


@pytest.mark.parametrize("options", [PLAIN, SamplingOptions(temperature=1.0, top_k=2)], ids=str)
def test_a_draft_that_is_always_wrong(options: SamplingOptions) -> None:
    """Two tokens that the model never chooses: of disjoint support, so that what is drawn instead is p itself."""

    class Never(Target):
        def logits(self, tokens: Any) -> np.ndarray:
            logits = super().logits(tokens).copy()
            logits[[0, 2]] = -np.inf
            return logits

    table = np.array([0.5, 0, 0.5, 0])
    assert difference(Never(V), lambda branch: drawn([table, table], branch), options) < 1e-12


def test_the_enumeration_is_complete() -> None:
    """Of the tool itself: all paths of dependent choices, with probabilities that sum to 1."""

    def run(branch: Any) -> tuple[int, ...]:
        first = branch.one_of([0, 1], [0.25, 0.75])
        return (first, *(branch.one_of([0, 1, 2], [0.5, 0.0, 0.5]) for _ in range(first)))

    assert sorted((result, p) for p, result in outcomes(run)) == [((0,), 0.25), ((1, 0), 0.375), ((1, 2), 0.375)]
    target = Target(V)
    plain = drafted_joint(target, lambda _: Proposal((), (), "test"), 2, PLAIN)
    for tokens in itertools.product(range(V), repeat=2):
        logits = [target.logits([*PROMPT, *tokens[:i]]).astype(np.float64) for i in range(2)]
        expected = np.prod([np.exp(row[t]) / np.exp(row).sum() for row, t in zip(logits, tokens, strict=True)])
        assert plain[tokens] == pytest.approx(expected, abs=1e-12)
