from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgekit.compress.saten.whitening import cholesky, metric, relative
from edgekit.compress.sensitivity import expected_cost
from edgekit.errors import ExportError
from tests.compress.saten.matrices import anisotropic, moments, random, toy


def test_the_square_is_that_of_the_outputs_on_samples() -> None:
    x, error, g = random(500, 20), random(12, 20, seed=1), random(12, seed=2).square()
    found = metric(error, x.T @ x / 500, g)
    expected = float(((x @ error.T).square() * g).sum() / 500)
    assert found.squared(error) == pytest.approx(expected)
    arrays = (error.float().numpy(), found.moments.float().numpy(), g.float().numpy())
    assert 0.5 * found.squared(error) == pytest.approx(expected_cost(*arrays), rel=1e-5)


def test_relative_error() -> None:
    weight = toy(12, 20)
    found = anisotropic(weight)
    assert relative(found.squared(0.25 * weight), found.squared(weight)) == pytest.approx(0.25)
    assert relative(0.0, found.squared(weight)) == relative(-1e-20, found.squared(weight)) == 0
    plain = metric(weight)
    ones = relative(plain.squared(torch.ones_like(weight)), plain.squared(weight))
    assert ones == pytest.approx(240**0.5 / float(weight.norm()))
    assert relative(0.0, 0.0) == 0


def test_factor_and_scale() -> None:
    found = anisotropic(toy(12, 20))
    exact = replace(found, damping=0.0)
    torch.testing.assert_close(exact.factor @ exact.factor.T, moments(20))
    assert torch.equal(exact.factor, exact.factor.tril())
    torch.testing.assert_close(exact.scale, moments(20).diagonal().sqrt())
    ridge = found.damped - found.moments
    torch.testing.assert_close(ridge, 1e-3 * moments(20).diagonal().mean() * torch.eye(20, dtype=torch.float64))


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_repair_of_what_is_not_positive_definite(unit: float) -> None:
    few = random(20, 5) @ random(5, 20, seed=1)
    singular = unit * few.T @ few
    indefinite = singular - 1e-3 * unit * torch.eye(20, dtype=torch.float64)
    for broken in (singular, indefinite):
        factor = cholesky(broken)
        assert factor.isfinite().all()
        moved = float((factor @ factor.T - broken).abs().max())
        assert moved <= 1.01 * (1e-3 * unit + 1e-6 * float(broken.diagonal().mean()))
    assert torch.linalg.cholesky_ex(indefinite).info != 0


def test_inputs_and_outputs_that_are_never_seen() -> None:
    seen, g = moments(20), torch.ones(12, dtype=torch.float64)
    seen[3], seen[:, 3], g[5] = 0, 0, 0
    for found in (metric(toy(12, 20), seen, g), metric(toy(12, 20), 0 * seen, 0 * g)):
        for number in (found.scale, found.root, found.factor):
            assert number.isfinite().all()
        assert (found.scale > 0).all()
        assert (found.root > 0).all()


def test_refusals() -> None:
    weight = toy(12, 20)
    with pytest.raises(ExportError, match=r"moments.*\(20, 20\)(.|\n)*\(19, 19\)"):
        metric(weight, moments(19))
    with pytest.raises(ExportError, match=r"gradients.*\(12,\)(.|\n)*\(20,\)"):
        metric(weight, None, torch.ones(20))
    with pytest.raises(ExportError, match="NaN"):
        metric(weight, moments(20) * float("nan"))
