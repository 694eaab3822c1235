from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import SessionError
from edgekit.runtime.drafting.distributions import drafted, filtered, probability_of, target, unfiltered
from edgekit.runtime.drafting.interface import Distribution
from edgekit.runtime.sampling import SamplingOptions, distribution
from tests.runtime.drafting.enumeration import Target

PLAIN = SamplingOptions(temperature=1.0)
FILTERS = [
    PLAIN,
    SamplingOptions(temperature=0.5),
    SamplingOptions(temperature=2.0, top_k=2),
    SamplingOptions(temperature=1.0, top_p=0.7),
    SamplingOptions(temperature=1.0, min_p=0.4),
    SamplingOptions(temperature=0.0),
]


@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_a_drafter_filters_as_the_model_does(options: SamplingOptions) -> None:
    """Probabilities are logits up to a constant, so a draft that says what the model says stays equal to it."""
    logits = Target(6).logits([1])
    probabilities = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
    found, wanted = filtered(probabilities, options), target(logits, options, ())
    assert found.ids.tolist() == wanted.ids.tolist() == np.flatnonzero(distribution(logits, options, ())).tolist()
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, rtol=1e-5)


def test_filtered_by_hand() -> None:
    """1/2 1/4 1/8 1/8 squared is 32 8 2 2 of 44."""
    probabilities = np.array([0.25, 0.125, 0.0, 0.5, 0.125])
    half = filtered(probabilities, SamplingOptions(temperature=0.5, repetition_penalty=3.0))
    assert half.ids.tolist() == [0, 1, 3, 4]
    np.testing.assert_allclose(half.probabilities, np.array([8, 2, 32, 2]) / 44, rtol=1e-6)
    np.testing.assert_allclose(unfiltered(probabilities).probabilities, [0.25, 0.125, 0.5, 0.125])


def test_tokens_without_probability_are_not_kept() -> None:
    """Top-k keeps k tokens, though all but one may be impossible or too unlikely for a number."""
    impossible = filtered(np.array([0.0, 1.0, 0.0]), SamplingOptions(temperature=1.0, top_k=2))
    assert impossible.ids.tolist() == [1]
    cold = target(np.array([0, 9, 5], np.float32), SamplingOptions(temperature=1e-3, top_k=2), ())
    assert (cold.ids.tolist(), cold.probabilities.tolist()) == ([1], [1.0])


def test_probabilities_that_are_no_numbers() -> None:
    for bad in ([0.0, 0.0], [np.nan, 1.0]):
        with pytest.raises(SessionError, match="finite"):
            filtered(np.array(bad), PLAIN)


def test_probability_of_a_token() -> None:
    found = Distribution(np.array([2, 5]), np.array([0.25, 0.75]))
    assert [probability_of(found, token) for token in range(7)] == [0, 0, 0.25, 0, 0, 0.75, 0]


def test_a_draft_without_choice_takes_no_random_number() -> None:
    generator = np.random.default_rng(0)
    state = generator.bit_generator.state
    assert drafted(Distribution(np.array([7]), np.ones(1)), generator) == (7, None)
    assert generator.bit_generator.state == state
    even = Distribution(np.array([2, 5]), np.array([0.5, 0.5]))
    found = [drafted(even, generator) for _ in range(20)]
    assert {token for token, _ in found} == {2, 5}
    assert all(q is even for _, q in found)
