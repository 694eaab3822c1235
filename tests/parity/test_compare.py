"""The measures of difference, on numbers whose result is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekit.parity.compare import Difference, agreement, difference, divergence, positions_first


def test_equal_tensors_do_not_differ() -> None:
    tensor = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    tensor[3] = 0
    assert difference(tensor, tensor.copy()) == Difference(1.0, 0.0, 0.0)


def test_each_measure() -> None:
    reference = np.zeros((20, 2), np.float32)
    reference[:] = [3.0, 4.0]
    found = reference.copy()
    found[17] = [4.0, 3.0]  # cosine 24/25, error √2 of norm √(20·25)
    result = difference(found, reference)
    assert result.cosine == pytest.approx(0.96)
    assert result.max_abs_error == pytest.approx(1.0)
    assert result.relative_error == pytest.approx(math.sqrt(2 / 500))


def test_scale_is_seen_by_the_errors_though_not_by_the_cosine() -> None:
    reference = np.full((3, 4), 2.0, np.float32)
    result = difference(reference * 2, reference)
    assert result.cosine == pytest.approx(1.0)
    assert (result.max_abs_error, result.relative_error) == (2.0, 1.0)


def test_a_vector_of_zeros_is_like_no_other() -> None:
    reference = np.ones((2, 3), np.float32)
    found = reference.copy()
    found[1] = 0
    assert difference(found, reference).cosine == 0.0
    assert difference(reference, np.zeros_like(reference)).relative_error == math.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_visible(bad: float) -> None:
    reference = np.ones((40, 3), np.float32)
    found = reference.copy()
    found[1, 1] = bad
    result = difference(found, reference)
    assert not math.isfinite(result.cosine) or result.cosine == 0
    assert not math.isfinite(result.max_abs_error)
    for both in (result.worst(Difference()), Difference().worst(result)):
        assert not math.isfinite(both.max_abs_error)
        assert not math.isfinite(both.relative_error)


def test_the_worst_takes_each_measure_for_itself() -> None:
    assert Difference(0.9, 1.0, 0.5).worst(Difference(0.8, 2.0, 0.1)) == Difference(0.8, 2.0, 0.5)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same shape"):
        difference(np.zeros((2, 3)), np.zeros((2, 1)))


def test_a_cache_becomes_a_vector_per_position() -> None:
    cache = np.arange(2 * 3 * 4).reshape(1, 2, 3, 4)
    vectors = positions_first(cache, 2)
    assert vectors.shape == (3, 8)
    assert vectors[1].tolist() == [*cache[0, 0, 1], *cache[0, 1, 1]]


def test_divergence_of_two_known_distributions() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    logits_p, logits_q = np.log(np.tile(p, (20, 1))) + 7, np.log(np.tile(q, (20, 1))) - 3
    logits_q[19] = logits_p[19]
    result = divergence(logits_q.astype(np.float32), logits_p.astype(np.float32))
    assert result[:19] == pytest.approx(0.25 * math.log(2), abs=1e-6)  # 0.5 ln 2 - 0.25 ln 2
    assert result[19] == pytest.approx(0.0, abs=1e-9)
    assert result.min() >= 0


def test_divergence_is_taken_from_the_reference() -> None:
    p, q = np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])
    assert divergence(q, p)[0] == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    assert divergence(p, q)[0] == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))


def test_divergence_of_large_logits_does_not_overflow() -> None:
    logits = np.array([[1e4, -1e4, 0.0]], np.float32)
    assert divergence(logits, logits)[0] == 0.0


def test_agreement() -> None:
    assert agreement(np.array([[0, 1, 0], [3, 1, 2]]), np.array([[0, 9, 5], [0, 1, 2]])).tolist() == [True, False]
