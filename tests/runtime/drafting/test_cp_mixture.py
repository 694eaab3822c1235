from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from edgekit.runtime.drafting import cp_mixture
from edgekit.runtime.sampling import SamplingOptions
from tests.runtime.drafting.enumeration import enumerate_chance, outcomes
from tests.runtime.drafting.fake_draft import random_cp

N, R, D = 3, 4, 5
PLAIN = SamplingOptions(temperature=1.0)
ALL = list(itertools.product(range(D), repeat=N))


def tensor(log_weights: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The joint as the formula has it, [D] * N."""
    result: np.ndarray = np.einsum("a,ai,aj,ak->ijk", np.exp(log_weights), *probabilities)
    return result


@pytest.mark.parametrize("seed", range(5))
def test_the_joint_is_the_formula_and_sums_to_1(seed: int) -> None:
    log_weights, probabilities = random_cp(N, R, D, seed)
    found = np.array([cp_mixture.joint(log_weights, probabilities, tokens) for tokens in ALL]).reshape((D,) * N)
    assert found.sum() == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(found, tensor(log_weights, probabilities), rtol=1e-13)


@pytest.mark.parametrize("m", range(N + 1))
def test_the_joint_of_the_first_tokens_is_a_marginal(m: int) -> None:
    log_weights, probabilities = random_cp(N, R, D)
    marginal = tensor(log_weights, probabilities).sum(axis=tuple(range(m, N)))
    for tokens in itertools.product(range(D), repeat=m):
        assert cp_mixture.joint(log_weights, probabilities, tokens) == pytest.approx(marginal[tokens], rel=1e-13)


@pytest.mark.parametrize("seed", range(5))
def test_the_conditionals_multiply_to_the_joint(seed: int) -> None:
    log_weights, probabilities = random_cp(N, R, D, seed)
    joint = tensor(log_weights, probabilities)
    for tokens in ALL:
        rows = list(cp_mixture.conditionals(log_weights, probabilities, tokens))
        assert len(rows) == N
        for row in rows:
            assert row.sum() == pytest.approx(1.0, abs=1e-14)
        product = np.prod([row[token] for row, token in zip(rows, tokens, strict=True)])
        assert product == pytest.approx(joint[tokens], abs=1e-15)


def test_as_many_conditionals_as_the_tokens_tell() -> None:
    log_weights, probabilities = random_cp(N, R, D)
    assert [len(list(cp_mixture.conditionals(log_weights, probabilities, [0] * m))) for m in range(4)] == [1, 2, 3, 3]


def test_the_posterior_is_bayes() -> None:
    log_weights, probabilities = random_cp(N, R, D)
    posterior = cp_mixture.updated(cp_mixture.weights(log_weights), probabilities[0, :, 2])
    by_hand = np.exp(log_weights) * probabilities[0, :, 2]
    np.testing.assert_allclose(posterior, by_hand / tensor(log_weights, probabilities)[2].sum(), rtol=1e-13)


def test_a_token_that_no_component_holds_possible_changes_nothing() -> None:
    prior = np.array([0.25, 0.75])
    assert cp_mixture.updated(prior, np.zeros(2)).tolist() == prior.tolist()
    log_weights, probabilities = np.log(prior), np.full((2, 2, 3), [0.5, 0.5, 0.0])
    assert cp_mixture.joint(log_weights, probabilities, [2, 0]) == 0.0
    last = list(cp_mixture.conditionals(log_weights, probabilities, [2, 0]))[-1]
    np.testing.assert_allclose(last, [0.5, 0.5, 0.0], rtol=1e-15)


def test_weights_need_not_be_normalised() -> None:
    np.testing.assert_allclose(cp_mixture.weights(np.array([-900.0, -900.0 + np.log(3)])), [0.25, 0.75], rtol=1e-12)


def test_rank_1_is_independent_heads() -> None:
    log_weights, probabilities = random_cp(N, 1, D)
    for tokens in ALL:
        for row, head in zip(cp_mixture.conditionals(log_weights, probabilities, tokens), probabilities, strict=True):
            np.testing.assert_allclose(row, head[0], rtol=1e-15)
        independent = np.prod([head[0, token] for head, token in zip(probabilities, tokens, strict=True)])
        assert cp_mixture.joint(log_weights, probabilities, tokens) == pytest.approx(independent, rel=1e-14)


def probability_by_tokens(run: Any) -> np.ndarray:
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for probability, tokens in outcomes(run):
        found[tokens] += probability
    return np.array([found[tokens] for tokens in ALL]).reshape((D,) * N)


def test_ancestral_and_sequential_drafts_are_draws_from_the_joint(monkeypatch: pytest.MonkeyPatch) -> None:
    enumerate_chance(monkeypatch)
    log_weights, probabilities = random_cp(N, R, D)
    joint = tensor(log_weights, probabilities)
    ancestral = probability_by_tokens(lambda b: cp_mixture.ancestral_draft(log_weights, probabilities, b)[1])
    np.testing.assert_allclose(ancestral, joint, atol=1e-15)

    def sequential(branch: Any) -> tuple[int, ...]:
        found = cp_mixture.sequential_draft(log_weights, probabilities, PLAIN, branch)
        return tuple(token for token, _ in found)

    # What is filtered goes through logits in single precision.
    np.testing.assert_allclose(probability_by_tokens(sequential), ancestral, rtol=1e-5)


def test_a_component_draft_is_a_draw_from_the_joint(monkeypatch: pytest.MonkeyPatch) -> None:
    enumerate_chance(monkeypatch)
    log_weights, probabilities = random_cp(N, R, D)

    def component(branch: Any) -> tuple[int, ...]:
        return tuple(token for token, _ in cp_mixture.component_draft(log_weights, probabilities, PLAIN, branch))

    np.testing.assert_allclose(probability_by_tokens(component), tensor(log_weights, probabilities), rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_drafts(seed: int) -> None:
    log_weights, probabilities = random_cp(N, R, D, seed)
    generator = np.random.default_rng(0)
    state = generator.bit_generator.state
    best: list[int] = []
    for _ in range(N):
        left = tensor(log_weights, probabilities)[tuple(best)]
        best.append(int(left.reshape(D, -1).sum(axis=1).argmax()))
    greedy = SamplingOptions()
    assert cp_mixture.sequential_draft(log_weights, probabilities, greedy, generator) == [(t, None) for t in best]
    heaviest = probabilities[:, log_weights.argmax()].argmax(axis=-1).tolist()
    assert cp_mixture.component_draft(log_weights, probabilities, greedy, generator) == [(t, None) for t in heaviest]
    assert generator.bit_generator.state == state


def test_the_greedy_draft_heeds_what_it_drafted() -> None:
    """Components that say 0 0 and 1 1. Each position on its own would say 0 1, but after a 0 the first is likelier."""
    log_weights = np.log([0.4, 0.6])
    probabilities = np.array([[[0.95, 0.05], [0.3, 0.7]], [[0.9, 0.1], [0.2, 0.8]]])
    assert (np.exp(log_weights) @ probabilities).argmax(axis=-1).tolist() == [0, 1]
    found = cp_mixture.sequential_draft(log_weights, probabilities, SamplingOptions(), np.random.default_rng(0))
    assert [token for token, _ in found] == [0, 0]


def test_single_precision_is_close_to_double() -> None:
    log_weights, probabilities = random_cp(N, R, D)
    for tokens in ALL[::7]:
        for low, high in zip(
            cp_mixture.conditionals(log_weights.astype(np.float32), probabilities.astype(np.float32), tokens),
            cp_mixture.conditionals(log_weights, probabilities, tokens),
            strict=True,
        ):
            assert low.dtype == np.float32
            np.testing.assert_allclose(low, high, rtol=1e-5)
