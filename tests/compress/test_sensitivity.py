from __future__ import annotations

import numpy as np
import pytest

from edgekit.compress.sensitivity import Candidate, expected_cost, forced, units_at_8_bits

UNITS = {
    "cheap": Candidate(cost=0.01, extra_bytes=1000),
    "dear": Candidate(cost=0.5, extra_bytes=1000),
    "dear but large": Candidate(cost=0.6, extra_bytes=100_000),
}


def test_nothing_may_cost_anything() -> None:
    assert units_at_8_bits(UNITS, 0) == set(UNITS)


def test_anything_may_cost() -> None:
    assert units_at_8_bits(UNITS, 10) == set()
    assert units_at_8_bits(UNITS, 1.11 + 1e-9) == set()
    assert units_at_8_bits({}, 0) == set()


def test_the_dearest_per_byte_are_given_up_first() -> None:
    assert units_at_8_bits(UNITS, 1.0) == {"dear"}
    # "cheap" costs 1e-5 a byte, "dear but large" 0.6e-5.
    assert units_at_8_bits(UNITS, 0.605) == {"dear", "cheap"}
    assert units_at_8_bits(UNITS, 0.5) == set(UNITS)


def test_8_bits_still_cost_a_little() -> None:
    """A 256th: what is left after giving "dear" up is 0.61 and 0.5/256."""
    assert units_at_8_bits(UNITS, 0.61 + 0.5 / 256 + 1e-6) == {"dear"}
    assert units_at_8_bits(UNITS, 0.61 + 0.5 / 256 - 1e-6) == {"dear", "cheap"}


def test_patterns() -> None:
    assert forced("lm_head", ("lm_head",))
    assert forced("model.layers.3.mlp.down_proj", ("x", "*.down_proj"))
    assert not forced("model.layers.3.mlp.down_proj", ("down_proj", "*.DOWN_PROJ"))
    assert not forced("lm_head", ())


@pytest.mark.parametrize("seed", [0, 1])
def test_expected_cost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    error = rng.standard_normal((5, 7)).astype(np.float32)
    x = rng.standard_normal((20, 7))
    moments = (x.T @ x / 20).astype(np.float32)
    gradients = rng.random(5).astype(np.float32)
    total = 0.0
    for n in range(5):
        for j in range(7):
            for k in range(7):
                total += 0.5 * float(gradients[n]) * float(error[n, j]) * float(moments[j, k]) * float(error[n, k])
    assert expected_cost(error, moments, gradients) == pytest.approx(total, rel=1e-5)
