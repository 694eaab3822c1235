"""The sparse part against exhaustive search and against least squares solved row by row."""

from __future__ import annotations

import torch

from edgekit.compress.saten.low_rank import nearest_pair
from edgekit.compress.saten.residual import fitted_values, pursued_mask, scaled_mask
from edgekit.compress.saten.sparse import Unstructured, sparsity_named
from edgekit.compress.saten.whitening import metric
from tests.compress.saten.matrices import anisotropic, random, toy


def test_values_are_least_squares() -> None:
    error = toy(12, 24)
    found = anisotropic(error)
    mask = sparsity_named("unstructured:70%").mask(random(12, 24).abs())
    mask[4] = False
    values = fitted_values(error, mask, found, steps=60)
    expected = torch.zeros_like(error)
    for row in range(12):
        chosen = mask[row]
        system = found.damped[chosen][:, chosen]
        expected[row, chosen] = torch.linalg.solve(system, (found.damped @ error[row])[chosen])
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-8)


def test_a_few_steps_go_most_of_the_way() -> None:
    error = toy(32, 64)
    found = anisotropic(error)
    mask = scaled_mask(error, Unstructured(0.9), found)
    start, few, many = (found.squared(error - fitted_values(error, mask, found, steps)) for steps in (0, 8, 200))
    assert few < start
    assert few - many < 0.1 * (start - many)


def test_one_weight_is_the_best_one() -> None:
    """Every weight tried, each with its best value, for errors that cancel over correlated inputs."""
    error = toy(6, 10)
    found = anisotropic(error)
    gains = torch.zeros_like(error)
    for n in range(6):
        for k in range(10):
            change = torch.zeros_like(error)
            change[n, k] = (error[n] @ found.damped[:, k]) / found.damped[k, k]
            before, after = ((e * (e @ found.damped)).sum(1) @ found.root.square() for e in (error, error - change))
            gains[n, k] = before - after
    mask = pursued_mask(error, torch.zeros_like(error), Unstructured(1 - 1 / 60), found)
    assert mask.nonzero().tolist() == [list(divmod(int(gains.argmax()), 10))]


def test_pursuit_beats_magnitudes_beside_low_rank() -> None:
    """Alternating with rank 8, each way of choosing for four rounds."""
    weight, sparsity = toy(64, 96), Unstructured(0.95)
    found = anisotropic(weight)
    left = []
    for pursue in (True, False):
        kept = torch.zeros_like(weight)
        for _ in range(4):
            a, b = nearest_pair(weight - kept, 8, found)
            rest = weight - (a @ b).T
            mask = pursued_mask(rest, kept, sparsity, found) if pursue else scaled_mask(rest, sparsity, found)
            kept = fitted_values(rest, mask, found)
        left.append(found.squared(rest - kept))
    assert left[0] < 0.9 * left[1]


def test_plain_metric_is_plain_magnitude() -> None:
    error, sparsity = toy(12, 20), Unstructured(0.9)
    found = metric(error)
    largest = sparsity.mask(error.abs())
    assert torch.equal(scaled_mask(error, sparsity, found), largest)
    assert torch.equal(pursued_mask(error, 0.5 * error * ~largest, sparsity, found), largest)
    torch.testing.assert_close(fitted_values(error, largest, found), error * largest)
