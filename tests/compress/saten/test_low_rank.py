"""The pair against Eckart–Young in a basis made without Cholesky, and its rounded form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from edgekit.compress.saten.compressed import compressed
from edgekit.compress.saten.factors import largest_rank, pair_bytes, pair_within, train_within
from edgekit.compress.saten.low_rank import nearest_pair, stored_pair
from edgekit.compress.saten.pieces import Pair
from edgekit.compress.saten.storage import stored
from edgekit.compress.saten.whitening import Metric, metric
from tests.compress.saten.matrices import anisotropic, toy


def least_error(weight: Tensor, rank: int, found: Metric) -> float:
    """√ of the squares of the singular values that rank leaves out of diag(√g) W M^{1/2}."""
    values, vectors = torch.linalg.eigh(found.moments)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return float(torch.linalg.svdvals(found.outputs.sqrt()[:, None] * weight @ root)[rank:].norm())


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (50, 50)])
def test_nothing_of_that_rank_is_nearer(shape: tuple[int, int]) -> None:
    weight = toy(*shape)
    found = anisotropic(weight)
    # Neither damped nor floored: the bound then holds exactly.
    found = replace(found, damping=0.0, outputs=found.outputs + 0.1)
    for rank in (1, 8, 40):
        a, b = nearest_pair(weight, rank, found)
        assert a.shape == (shape[1], rank)
        assert b.shape == (rank, shape[0])
        error = found.squared(weight - (a @ b).T) ** 0.5
        assert error == pytest.approx(least_error(weight, rank, found), rel=1e-6, abs=1e-6)
    plain_a, plain_b = nearest_pair(weight, 8, metric(weight))
    assert found.squared(weight - (plain_a @ plain_b).T) ** 0.5 > 1.1 * least_error(weight, 8, found)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_fitting_again_after_rounding_helps(dtype: str) -> None:
    weight = toy(64, 128)
    found = anisotropic(weight)
    factors = nearest_pair(weight, 16, found)
    a, b = factors
    exact = compressed("x", weight, found, [stored_pair(weight, factors, found, "float16", 64)])
    mine = compressed("x", weight, found, [stored_pair(weight, factors, found, dtype, 64)])
    rounded = Pair(stored(a.T.float().numpy(), dtype), stored(b.float().numpy(), dtype))
    other = compressed("x", weight, found, [rounded])
    assert mine.nbytes == other.nbytes == pair_bytes((64, 128), 16, dtype, 64)
    assert mine.weighted_error**2 - exact.weighted_error**2 < 0.5 * (other.weighted_error**2 - exact.weighted_error**2)


def test_sides_that_are_no_whole_blocks() -> None:
    weight = toy(50, 72)
    found = anisotropic(weight)
    pair = stored_pair(weight, nearest_pair(weight, 12, found), found, "int8", 64)
    exact = stored_pair(weight, nearest_pair(weight, 12, found), found, "float16", 64)
    errors = [compressed("x", weight, found, [piece]).weighted_error for piece in (pair, exact)]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


@pytest.mark.parametrize("dtype", ["float16", "int8", "int4", "int2"])
@pytest.mark.parametrize("budget", [0, 100, 1000, 5000, 10**6])
def test_the_largest_rank_within_a_budget(budget: int, dtype: str) -> None:
    sizes = [pair_bytes((50, 72), rank, dtype, 64) for rank in range(51)]
    assert largest_rank((50, 72), budget, dtype, 64) == max(r for r, size in enumerate(sizes) if size <= budget)


def test_factors_within_a_budget() -> None:
    weight = toy(64, 96)
    found = anisotropic(weight)
    pair = pair_within(weight, found, 2000, "int8", 64)
    assert pair is not None
    assert pair.nbytes <= 2000 < pair_bytes((64, 96), pair.rank + 1, "int8", 64)
    assert pair_within(weight, found, 100, "int8", 64) is None
    train = train_within(weight, 4, 3000, "float16", 64)
    assert train is not None
    assert 2000 < train.nbytes <= 3000
    larger = train_within(weight, 4, 6000, "float16", 64)
    assert larger is not None
    errors = [compressed("x", weight, found, [piece]).plain_error for piece in (train, larger)]
    assert errors[1] < errors[0]
    assert train_within(weight, 4, 50, "float16", 64) is None


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_the_unit_of_gradients_does_not_matter(unit: float) -> None:
    """Squared gradients of a loss are of any size; float16 has few digits for small numbers and ends at 65504."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(24, 40, generator=generator)
    outputs = torch.rand(24, generator=generator) + 0.1
    found = nearest_pair(weight, 8, metric(weight, None, outputs * unit))
    expected = nearest_pair(weight, 8, metric(weight, None, outputs))
    torch.testing.assert_close(found[0] @ found[1], expected[0] @ expected[1], rtol=1e-3, atol=1e-6)
    pair = stored_pair(weight, found, metric(weight, None, outputs * unit), "float16", 32)
    product = torch.from_numpy(pair.dense()).double().T
    assert (product - expected[0] @ expected[1]).norm() < 1e-3 * product.norm()
