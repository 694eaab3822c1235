"""GPTQ against plain rounding, under the error it is meant to keep small."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.compress import gptq
from edgekit.compress.blockwise import BlockQuantized, quantize_blocks
from edgekit.compress.gptq import gptq_quantize

ROWS, INPUTS = 24, 96


def weight(inputs: int = INPUTS) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, inputs)).astype(np.float32)


def correlated(inputs: int = INPUTS) -> torch.Tensor:
    """E[x xᵀ] of inputs that a few hidden causes explain, of very different size."""
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((inputs, 12)) * 10 ** rng.uniform(-1, 1, (inputs, 1))
    return torch.from_numpy(mixing @ mixing.T + 0.05 * np.eye(inputs)).float()


def activation_error(values: np.ndarray, quantized: BlockQuantized, moments: torch.Tensor) -> float:
    """tr(ΔW M ΔWᵀ) = E‖ΔW x‖²."""
    error = (values - quantized.dequantized()).astype(np.float64)
    return float(np.trace(error @ moments.double().numpy() @ error.T))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("inputs", [96, 70])
def test_correlated_inputs(inputs: int, symmetric: bool) -> None:
    values, moments = weight(inputs), correlated(inputs)
    rounded = quantize_blocks(values, 4, 32, symmetric=symmetric)
    weighted = quantize_blocks(values, 4, 32, symmetric=symmetric, importance=moments.diagonal().numpy())
    quantized = gptq_quantize(values, moments, 4, 32, symmetric=symmetric)
    mine = activation_error(values, quantized, moments)
    assert mine < 0.3 * activation_error(values, rounded, moments)
    assert mine < 0.5 * activation_error(values, weighted, moments)
    assert quantized.codes.shape == rounded.codes.shape
    assert quantized.inputs == inputs
    assert quantized.codes.max() <= 15
    if symmetric:
        assert (quantized.zero_points == 8).all()


def test_uncorrelated_inputs_are_rounded_to_nearest() -> None:
    values = weight()
    rounded = quantize_blocks(values, 4, 32)
    quantized = gptq_quantize(values, torch.eye(INPUTS), 4, 32)
    assert np.array_equal(quantized.zero_points, rounded.zero_points)
    np.testing.assert_allclose(quantized.scales, rounded.scales, rtol=1e-5)
    assert (quantized.codes != rounded.codes).mean() < 0.001


def test_inputs_that_are_never_seen() -> None:
    values, moments = weight(), correlated()
    dead = [0, 40, 41, 95]
    moments[dead] = 0
    moments[:, dead] = 0
    quantized = gptq_quantize(values, moments, 4, 32)
    assert np.isfinite(quantized.dequantized()).all()
    assert activation_error(values, quantized, moments) < 0.3 * activation_error(
        values, quantize_blocks(values, 4, 32), moments
    )


def test_no_input_is_ever_seen() -> None:
    values = weight()
    quantized = gptq_quantize(values, torch.zeros(INPUTS, INPUTS), 4, 32)
    assert np.abs(values - quantized.dequantized()).max() < 0.5


def test_rows_are_quantised_alike_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values, moments = weight(), correlated()
    whole = gptq_quantize(values, moments, 4, 32)
    monkeypatch.setattr(gptq, "ROWS_AT_A_TIME", 7)
    parts = gptq_quantize(values, moments, 4, 32)
    # Products of other sizes round differently in the last bit, which may move a code that sits between two.
    assert (whole.codes != parts.codes).mean() < 0.005
    np.testing.assert_allclose(whole.scales, parts.scales, rtol=0.2)
    assert len(parts.codes) == ROWS


def test_the_weights_given_are_left_alone() -> None:
    values = weight()
    before = values.copy()
    gptq_quantize(values, correlated(), 4, 32)
    assert np.array_equal(values, before)
