from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import SessionError
from edgekit.runtime.drafting.interface import Distribution, Proposal
from edgekit.runtime.drafting.verify import Verdict, acceptance, residual, verify
from edgekit.runtime.sampling import SamplingOptions, sample
from tests.runtime.drafting.enumeration import PROMPT, Target

GREEDY, PLAIN = SamplingOptions(), SamplingOptions(temperature=1.0)


def sparse(values: dict[int, float]) -> Distribution:
    return Distribution(np.array(list(values), np.int64), np.array(list(values.values())))


def dense(found: Distribution, size: int) -> np.ndarray:
    result = np.zeros(size)
    result[found.ids] = found.probabilities
    return result


def certain(*tokens: int) -> Proposal:
    return Proposal(tokens, (None,) * len(tokens), "test")


def rows(*best: int, vocab: int = 5) -> np.ndarray:
    """Logits of which these are the largest."""
    logits = np.zeros((len(best), vocab), np.float32)
    logits[np.arange(len(best)), best] = 4
    return logits


PAIRS = [
    ({0: 0.5, 1: 0.5}, {0: 0.1, 1: 0.9}),
    ({0: 0.2, 2: 0.3, 5: 0.5}, {2: 1.0}),
    ({0: 0.2, 2: 0.8}, {1: 0.5, 4: 0.5}),
    ({7: 1.0}, {0: 0.5, 7: 0.5}),
    ({0: 0.3, 1: 0.7}, {0: 0.3, 1: 0.7}),
    ({3: 1e-300, 4: 1.0}, {3: 1.0}),
]


@pytest.mark.parametrize(("p", "q"), PAIRS, ids=str)
def test_acceptance_and_residual_give_the_model(p: dict[int, float], q: dict[int, float]) -> None:
    """sum_x q(x) (a(x) [x] + (1 - a(x)) residual) = p."""
    wanted, given = sparse(p), sparse(q)
    found = np.zeros(8)
    for token, share in q.items():
        kept = acceptance(wanted, given, token)
        assert 0.0 <= kept <= 1.0
        found[token] += share * kept
        found += share * (1 - kept) * dense(residual(wanted, given), 8)
    np.testing.assert_allclose(found, dense(wanted, 8), atol=1e-15)


def test_equal_up_to_rounding() -> None:
    """p below q by a last bit everywhere: nothing is left over, and a refusal by rounding draws from p."""
    q = sparse({0: 0.3, 1: 0.7})
    p = Distribution(q.ids, np.nextafter(q.probabilities, 0))
    assert acceptance(p, q, 0) == pytest.approx(1.0, abs=1e-15)
    assert residual(p, q) is p
    assert residual(sparse({4: 1.0}), sparse({4: 1.0})).ids.tolist() == [4]


def test_a_residual_holds_possible_tokens_only() -> None:
    left = residual(sparse({0: 0.1, 1: 0.2, 2: 0.7}), sparse({1: 0.5, 2: 0.5}))
    assert left.ids.tolist() == [0, 2]
    np.testing.assert_allclose(left.probabilities, [1 / 3, 2 / 3])


def test_a_token_of_no_probability_was_not_drawn() -> None:
    with pytest.raises(ValueError, match="token 3"):
        acceptance(sparse({3: 1.0}), sparse({0: 0.5, 4: 0.5}), 3)
    proposal = Proposal((3,), (sparse({0: 1.0}),), "test")
    with pytest.raises(ValueError, match="token 3"):
        verify(rows(3, 0), proposal, PLAIN, PROMPT, np.random.default_rng(0))


@pytest.mark.parametrize(("given", "distributions"), [(0, 2), (2, 2), (4, 2), (3, 1), (3, 3)])
def test_a_row_for_each_token_and_one_more(given: int, distributions: int) -> None:
    proposal = Proposal((1, 2), (None,) * distributions, "test")
    with pytest.raises(ValueError, match="need 3 rows"):
        verify(rows(*[1] * given), proposal, GREEDY, PROMPT, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("drafted", "verdict"),
    [
        ((), Verdict(0, 1)),
        ((1,), Verdict(1, 2)),
        ((1, 2, 3), Verdict(3, 4)),
        ((0, 2, 3), Verdict(0, 1)),
        ((1, 2, 2), Verdict(2, 3)),
        ((1, 3, 3), Verdict(1, 2)),
    ],
)
def test_greedy(drafted: tuple[int, ...], verdict: Verdict) -> None:
    generator = np.random.default_rng(0)
    state = generator.bit_generator.state
    assert verify(rows(1, 2, 3, 4)[: len(drafted) + 1], certain(*drafted), GREEDY, PROMPT, generator) == verdict
    claimed = Proposal(drafted, tuple(sparse({t: 0.01, t + 5: 0.99}) for t in drafted), "test")
    assert verify(rows(1, 2, 3, 4)[: len(drafted) + 1], claimed, GREEDY, PROMPT, generator) == verdict
    assert generator.bit_generator.state == state


def test_greedy_takes_the_lowest_of_equals() -> None:
    logits = np.zeros((2, 5), np.float32)
    logits[0, [2, 3]] = 1
    assert verify(logits, certain(3), GREEDY, PROMPT, np.random.default_rng(0)) == Verdict(0, 2)
    assert verify(logits, certain(2), GREEDY, PROMPT, np.random.default_rng(0)) == Verdict(1, 0)


def test_the_penalty_knows_the_tokens_accepted_before() -> None:
    """2 is best in both rows; once it has been chosen, the penalty puts 4 before it."""
    logits = np.array([[0, 0, 3, 0, 0], [0, 0, 3, 0, 2.5], [0, 0, 3, 0, 2.5]], np.float32)
    options = SamplingOptions(repetition_penalty=2.0)
    history = [1]
    assert verify(logits, certain(2, 4), options, history, np.random.default_rng(0)) == Verdict(2, 2)
    assert verify(logits, certain(2, 2), options, history, np.random.default_rng(0)) == Verdict(1, 4)
    assert history == [1]


@pytest.mark.parametrize("options", [GREEDY, PLAIN, SamplingOptions(temperature=0.9, top_k=1)], ids=str)
def test_without_a_draft_it_is_plain_sampling(options: SamplingOptions) -> None:
    model = Target(50)
    one, other = np.random.default_rng(4), np.random.default_rng(4)
    for place in range(40):
        logits = model.logits([place])
        assert verify(logits[None], certain(), options, PROMPT, one) == Verdict(
            0, sample(logits, options, PROMPT, other)
        )
    assert one.bit_generator.state == other.bit_generator.state


@pytest.mark.parametrize("options", [GREEDY, PLAIN], ids=str)
@pytest.mark.parametrize("bad", [0, 1])
def test_logits_that_are_no_numbers(options: SamplingOptions, bad: int) -> None:
    logits = np.zeros((2, 5), np.float32)
    logits[0, 0] = 200
    logits[bad] = np.nan
    with pytest.raises(SessionError, match="finite"):
        verify(logits, certain(0), options, PROMPT, np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_gives_the_same_tokens_with_certain_drafts_and_without(seed: int) -> None:
    """Token by token with `sample`, and by drafts of which some are right: the same numbers decide."""
    logits = np.random.default_rng(7).standard_normal((40, 12)).astype(np.float32)
    options = SamplingOptions(temperature=1.3, top_p=0.95, top_k=9)
    plain, drafted = (np.random.default_rng(seed) for _ in range(2))
    wanted = [sample(row, options, (), plain) for row in logits]
    found: list[int] = []
    dice = np.random.default_rng(seed + 100)
    while len(found) < len(wanted):
        count = int(dice.integers(0, min(5, len(wanted) - len(found))))
        draft = [wanted[len(found) + i] if dice.random() < 0.7 else int(dice.integers(12)) for i in range(count)]
        verdict = verify(logits[len(found) : len(found) + count + 1], certain(*draft), options, (), drafted)
        found += [*draft[: verdict.accepted], verdict.token]
    assert found == wanted
    assert plain.random() == drafted.random()
