"""Coordinate descent over codes and scales: never worse in its metric, and as good as brute force where that is had."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from edgekit.compress.blockwise import BlockQuantized, quantize_blocks
from edgekit.compress.gptq import DAMPING, gptq_quantize
from edgekit.compress.refine import refined
from tests.compress.test_gptq import correlated, weight


def damped_square(values: np.ndarray, found: BlockQuantized, moments: torch.Tensor) -> float:
    damped = moments.double() + DAMPING * moments.double().diagonal().mean() * torch.eye(len(moments))
    error = torch.from_numpy(values - found.dequantized()).double()
    return float(((error @ damped) * error).sum())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("inputs", [96, 70])
def test_every_sweep_lowers_the_square(inputs: int, symmetric: bool, bits: int) -> None:
    values, moments = weight(inputs), correlated(inputs)
    begin = gptq_quantize(values, moments, bits, 32, symmetric=symmetric, positive=symmetric)
    errors = [damped_square(values, begin, moments)]
    for sweeps in (1, 2, 4):
        found = refined(begin, values, moments, sweeps, positive=symmetric)
        assert np.array_equal(found.zero_points, begin.zero_points)
        assert found.codes.shape == begin.codes.shape
        assert found.codes.max() < 2**bits
        assert np.array_equal(found.scales, found.scales.astype(np.float16).astype(np.float32))
        assert not symmetric or (found.scales > 0).all()
        errors.append(damped_square(values, found, moments))
    assert errors[1] < 0.97 * errors[0]
    assert errors[3] <= errors[2] * (1 + 1e-5) <= errors[1] * (1 + 2e-5)


def test_no_single_code_is_better() -> None:
    """After many sweeps with scales at rest, changing any one code raises the square."""
    values, moments = weight(8)[:3], correlated(8)
    found = refined(gptq_quantize(values, moments, 2, 8), values, moments, 60)
    least = damped_square(values, found, moments)
    for row, column, code in product(range(3), range(8), range(4)):
        codes = found.codes.copy()
        codes[row, 0, column] = code
        other = BlockQuantized(codes, found.scales, found.zero_points, 2, 8)
        assert damped_square(values, other, moments) >= least * (1 - 1e-5)


def test_scales_are_least_squares() -> None:
    """With codes that no step moves, scales end where the derivative is nothing (to what float16 holds)."""
    values, moments = weight(8)[:3], correlated(8)
    found = refined(gptq_quantize(values, moments, 2, 8), values, moments, 60)
    for factor in (0.995, 1.005):
        scales = (found.scales * factor).astype(np.float32)
        other = BlockQuantized(found.codes, scales, found.zero_points, 2, 8)
        assert damped_square(values, other, moments) > damped_square(values, found, moments)


def test_inputs_that_are_never_seen_and_blocks_of_nothing() -> None:
    values, moments = weight(), torch.zeros(96, 96)
    values[3] = 0
    found = refined(quantize_blocks(values, 3, 32), values, moments, 2)
    assert np.isfinite(found.dequantized()).all()
    assert np.abs(found.dequantized()[3]).max() < 1e-6


def test_what_is_given_is_left_alone() -> None:
    values, moments = weight(), correlated()
    begin = gptq_quantize(values, moments, 3, 32)
    before = values.copy(), begin.codes.copy(), begin.scales.copy(), moments.clone()
    refined(begin, values, moments, 2)
    assert np.array_equal(values, before[0])
    assert np.array_equal(begin.codes, before[1])
    assert np.array_equal(begin.scales, before[2])
    assert torch.equal(moments, before[3])
