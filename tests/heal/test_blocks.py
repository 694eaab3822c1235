"""Codes and scales of a base as they are trained: where they begin, what is added, and what is stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.compress.blockwise import quantize_blocks
from edgekit.compress.saten.pieces import base
from edgekit.heal.summands import Blocks


@pytest.mark.parametrize(("inputs", "block"), [(64, 32), (70, 32), (48, 64)])
def test_codes_begin_near_the_original_within_their_own_rounding(inputs: int, block: int) -> None:
    draw = np.random.default_rng(5)
    weight = draw.standard_normal((7, inputs)).astype(np.float32)
    piece = base(quantize_blocks(weight, 3, block))
    blocks = Blocks(piece, scales=False, codes=True)
    held = blocks.held(torch.from_numpy(weight))
    codes = blocks.held(None)
    assert float((held - codes).abs().max()) < 0.5
    assert float((held - codes).abs().mean()) > 0.1  # not where it was: towards the original
    scale = torch.from_numpy(np.repeat(piece.quantized.scales, block, axis=1)[:, :inputs])
    exact = torch.from_numpy(weight) / scale
    inside = (exact - codes).abs() < 0.45
    torch.testing.assert_close(held[inside], exact[inside])
    assert inside.float().mean() > 0.8
    np.testing.assert_allclose(blocks.add(held).numpy(), piece.dense(), rtol=1e-6)
    gradient = torch.randn(held.shape, generator=torch.Generator().manual_seed(1))
    leaf = held.clone().requires_grad_(True)
    blocks.add(leaf).backward(gradient)
    torch.testing.assert_close(leaf.grad, gradient * scale)  # as if they were not rounded
    stored, kept = blocks.stored(held).quantized, piece.quantized
    np.testing.assert_array_equal(stored.codes.reshape(7, -1)[:, :inputs], kept.codes.reshape(7, -1)[:, :inputs])


@pytest.mark.parametrize("symmetric", [False, True])
def test_scales_above_zero_stay_there(symmetric: bool) -> None:
    weight = np.random.default_rng(6).standard_normal((5, 64)).astype(np.float32)
    quantized = quantize_blocks(weight, 4, 32, symmetric=symmetric, positive=symmetric)
    if not symmetric:
        quantized.scales[2, 1] *= -1  # which least squares may choose
    blocks = Blocks(base(quantized), scales=True, codes=False)
    with torch.no_grad():
        blocks.scales.sub_(1.0)
    stored = blocks.stored(blocks.held(None))
    assert bool((stored.quantized.scales > 0).all()) == symmetric
    np.testing.assert_allclose(blocks.add(blocks.held(None)).detach().numpy(), stored.dense(), rtol=1e-6)
