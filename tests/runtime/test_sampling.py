from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from edgekit.errors import EdgekitError, SessionError
from edgekit.runtime.sampling import SamplingOptions, _largest, distribution, sample, seeded


def reference(logits: np.ndarray, options: SamplingOptions, history: list[int]) -> np.ndarray:
    """The definition, token by token, in double precision."""
    scores = {i: float(value) for i, value in enumerate(logits)}
    for token in set(history):
        # The penalty acts on float32 logits.
        penalty = np.float32(options.repetition_penalty)
        value = np.float32(scores[token])
        scores[token] = float(value / penalty if value > 0 else value * penalty)
    scores = {i: value / options.temperature for i, value in scores.items()}
    if options.top_k:
        last = sorted(scores.values(), reverse=True)[: options.top_k][-1]
        scores = {i: value for i, value in scores.items() if value >= last}

    def probabilities() -> dict[int, float]:
        highest = max(scores.values())
        weights = {i: np.exp(value - highest) for i, value in scores.items()}
        total = sum(weights.values())
        return {i: weight / total for i, weight in weights.items()}

    if options.top_p < 1:
        kept, mass = {}, 0.0
        for i, probability in sorted(probabilities().items(), key=lambda item: (-item[1], item[0])):
            if mass >= options.top_p:
                break
            kept[i] = scores[i]
            mass += probability
        scores = kept
    if options.min_p:
        found = probabilities()
        scores = {i: scores[i] for i, p in found.items() if p >= options.min_p * max(found.values())}
    result = np.zeros(len(logits))
    for i, probability in probabilities().items():
        result[i] = probability
    return result


OPTIONS = [
    SamplingOptions(temperature=1.0),
    SamplingOptions(temperature=0.3),
    SamplingOptions(temperature=5.0),
    SamplingOptions(temperature=1e-3),
    SamplingOptions(temperature=1.0, top_k=1),
    SamplingOptions(temperature=1.0, top_k=7),
    SamplingOptions(temperature=1.0, top_k=10_000),
    SamplingOptions(temperature=1.0, top_p=1e-9),
    SamplingOptions(temperature=1.0, top_p=0.5),
    SamplingOptions(temperature=3.0, top_p=0.95),
    SamplingOptions(temperature=1.0, min_p=0.1),
    SamplingOptions(temperature=1.0, min_p=1.0),
    SamplingOptions(temperature=1.0, repetition_penalty=1.3),
    SamplingOptions(temperature=1.0, repetition_penalty=0.7),
    SamplingOptions(temperature=0.8, top_k=40, top_p=0.9, min_p=0.05, repetition_penalty=1.1),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("vocab", [40, 3000])
def test_distribution_is_the_definition(options: SamplingOptions, vocab: int) -> None:
    rng = np.random.default_rng(7)
    logits = (rng.standard_normal(vocab) * 4).astype(np.float32)
    history = [3, 5, 3, 30, 0]
    got = distribution(logits, options, history)
    want = reference(logits, options, history)
    assert not got[want == 0].any()
    assert want[got == 0].sum() < 2**-53, "only what no random number of 53 bits can hit may be left out"
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=2**-53)
    assert got.sum() == pytest.approx(1.0, abs=1e-12)


def test_the_filters_act_on_what_the_one_before_left() -> None:
    """0.4 0.3 0.2 0.1: top-k 3 leaves 4/9 3/9 2/9, of which top-p 0.75 needs two; without top-k it would need three."""
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    both = distribution(logits, SamplingOptions(temperature=1.0, top_k=3, top_p=0.75), [])
    np.testing.assert_allclose(both, [4 / 7, 3 / 7, 0, 0], rtol=1e-6)
    only = distribution(logits, SamplingOptions(temperature=1.0, top_p=0.75), [])
    np.testing.assert_allclose(only, [4 / 9, 3 / 9, 2 / 9, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.49, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.76, 3), (0.875, 3), (0.88, 4), (1.0, 4)]
)
def test_top_p_at_its_borders(top_p: float, kept: int) -> None:
    """1/2 1/4 1/8 1/8: a token is kept while the mass before it is below top-p."""
    logits = np.log2(np.array([0.5, 0.25, 0.125, 0.125])).astype(np.float32)
    got = distribution(logits, SamplingOptions(temperature=float(1 / np.log(2)), top_p=top_p), [])
    assert np.count_nonzero(got) == kept


def test_a_nucleus_wider_than_the_sorted_head() -> None:
    """Equal probabilities force the search to grow past its first guess, and rank by token."""
    got = distribution(np.zeros(30_000, np.float32), SamplingOptions(temperature=1.0, top_p=0.5), [])
    assert np.array_equal(np.flatnonzero(got), np.arange(15_000))
    spread = np.linspace(0, 1, 30_000, dtype=np.float32)
    options = SamplingOptions(temperature=1.0, top_p=0.99)
    weights = np.sort(np.exp(spread.astype(np.float64)))[::-1]
    wanted = int(np.argmax(np.cumsum(weights) >= 0.99 * weights.sum())) + 1
    assert np.count_nonzero(distribution(spread, options, [])) == wanted


@pytest.mark.parametrize("size", [1, 2, 5, 63, 1000, 5003])
@pytest.mark.parametrize("count", [1, 2, 40, 999, 5003, 9000])
def test_the_largest_are_among_those_found_cheaply(size: int, count: int) -> None:
    logits = np.random.default_rng(size).integers(-50, 50, size).astype(np.float32)
    found = _largest(logits, count)
    assert np.array_equal(found, np.unique(found))
    assert len(found) >= min(count, size)
    missed = np.delete(logits, found)
    assert missed.size == 0 or missed.max() < logits[found].min(), "none is missed, nor any that ties"


def test_top_k_keeps_ties_with_the_last() -> None:
    got = distribution(np.array([2, 1, 1, 0], np.float32), SamplingOptions(temperature=1.0, top_k=2), [])
    assert np.array_equal(got > 0, [True, True, True, False])


def test_greedy_takes_the_lowest_of_equals_and_no_random_number() -> None:
    logits = np.array([0, 3, 3, 1], np.float32)
    _, generator = seeded(SamplingOptions(seed=1))
    state = generator.bit_generator.state
    assert sample(logits, SamplingOptions(), [], generator) == 1
    assert generator.bit_generator.state == state
    assert distribution(logits, SamplingOptions(), []).tolist() == [0, 1, 0, 0]


def test_greedy_obeys_the_repetition_penalty() -> None:
    logits = np.array([1.0, 1.2, -1.0], np.float32)
    options = SamplingOptions(repetition_penalty=1.5)
    _, generator = seeded(options)
    assert sample(logits, options, [1], generator) == 0
    negative = np.array([-1.0, -1.2], np.float32)
    assert sample(negative, options, [0], generator) == 1
    assert logits.tolist() == [1.0, pytest.approx(1.2), -1.0], "the caller's logits are left alone"


def test_an_infinite_logit_of_a_forbidden_token_is_fine() -> None:
    logits = np.array([-np.inf, 0.0, 0.0], np.float32)
    np.testing.assert_allclose(distribution(logits, SamplingOptions(temperature=1.0), []), [0, 0.5, 0.5])


@pytest.mark.parametrize("bad", [[np.nan, 1], [1, np.nan], [np.inf, 1], [-np.inf, -np.inf]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_without_a_finite_maximum_are_refused(bad: list[float], temperature: float) -> None:
    options = SamplingOptions(temperature=temperature)
    with pytest.raises(SessionError, match="finite"):
        sample(np.array(bad, np.float32), options, [], seeded(options)[1])


def test_a_seed_repeats_every_choice() -> None:
    options = SamplingOptions(temperature=1.0, top_p=0.9, seed=123)
    logits = np.random.default_rng(0).standard_normal((50, 500)).astype(np.float32)

    def run(options: SamplingOptions) -> list[int]:
        _, generator = seeded(options)
        return [sample(row, options, [], generator) for row in logits]

    assert run(options) == run(options)
    assert run(options) != run(SamplingOptions(temperature=1.0, top_p=0.9, seed=124))


def test_the_generator_is_pcg64_from_the_seed() -> None:
    """The numbers that NumPy documents for PCG64(42); another generator would break every recorded seed."""
    seed, generator = seeded(SamplingOptions(seed=42))
    assert seed == 42
    assert generator.random() == 0.7739560485559633


def test_a_seed_that_was_not_given_is_reported() -> None:
    options = SamplingOptions(temperature=1.0)
    seed, generator = seeded(options)
    assert seeded(SamplingOptions(temperature=1.0, seed=seed))[1].random() == generator.random()
    assert len({seeded(options)[0] for _ in range(8)}) > 1


def test_samples_follow_the_distribution() -> None:
    """A chi-square test with 5 degrees of freedom; 20.5 is exceeded once in a thousand, and the seed is fixed."""
    options = SamplingOptions(temperature=0.7, top_k=6, seed=5)
    logits = np.random.default_rng(3).standard_normal(20).astype(np.float32)
    _, generator = seeded(options)
    draws = 5000
    counts = Counter(sample(logits, options, [], generator) for _ in range(draws))
    wanted = distribution(logits, options, [])
    assert set(counts) <= set(np.flatnonzero(wanted).tolist())
    assert sum((counts[i] - draws * p) ** 2 / (draws * p) for i, p in enumerate(wanted) if p) < 20.5


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": -1}, "top-k"),
        ({"top_p": 0.0}, "top-p"),
        ({"top_p": 1.01}, "top-p"),
        ({"top_p": float("nan")}, "top-p"),
        ({"min_p": -0.01}, "min-p"),
        ({"min_p": 1.5}, "min-p"),
        ({"repetition_penalty": 0.0}, "repetition penalty"),
        ({"seed": -1}, "seed"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float], rule: str) -> None:
    with pytest.raises(EdgekitError, match=rule) as caught:
        SamplingOptions(**values)  # type: ignore[arg-type]
    assert str(next(iter(values.values()))) in caught.value.fact
