"""TT-SVD against its bound, against the singular value decomposition, and its three forms against each other."""

from __future__ import annotations

import pytest
import torch

from edgekit.compress.saten.factorisation import Factorisation, factorisation
from edgekit.compress.saten.sparse import sparsity_named
from edgekit.compress.saten.tensor_train import TensorTrain, Unfoldings, tensor_train
from edgekit.errors import ExportError
from tests.compress.saten.matrices import random, toy

ORDERS = range(2, 7)
EPSILONS = (0.01, 0.1, 0.3, 0.6, 0.9)
SIDES = (48, 60)


def train(order: int, epsilon: float) -> TensorTrain:
    return tensor_train(toy(*SIDES), factorisation(*SIDES, order), epsilon=epsilon)


@pytest.mark.parametrize("order", ORDERS)
def test_the_bound_holds_and_more_error_means_fewer_parameters(order: int) -> None:
    matrix = toy(*SIDES)
    trains = [train(order, epsilon) for epsilon in EPSILONS]
    errors = [float((matrix - found.matrix()).norm() / matrix.norm()) for found in trains]
    assert all(error <= epsilon for error, epsilon in zip(errors, EPSILONS, strict=True))
    assert errors == sorted(errors)
    counts = [found.parameters() for found in trains]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2 * counts[-1]
    assert errors[-1] > 0.3  # the error that is allowed is used: a train of full rank would have none


@pytest.mark.parametrize("order", ORDERS)
def test_no_error_is_exact(order: int) -> None:
    matrix = toy(*SIDES)
    assert (train(order, 0.0).matrix() - matrix).norm() <= 1e-13 * matrix.norm()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_the_forms_agree(order: int, epsilon: float) -> None:
    found = train(order, epsilon)
    a, b = found.pair()
    x = random(2, 3, SIDES[0], seed=5)
    by_cores = found.cores[0]
    for core in found.cores[1:]:
        by_cores = torch.tensordot(by_cores, core, dims=1)
    dense = by_cores.reshape(SIDES)
    assert a.shape == (SIDES[0], found.ranks[found.shape.split])
    for form in (found.matrix(), a @ b):
        torch.testing.assert_close(form, dense, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.apply(x), x @ dense, rtol=0, atol=1e-11)
    assert found.apply(x[0, 0]).shape == (SIDES[1],)
    assert found.parameters() == sum(core.numel() for core in found.cores)
    assert found.pair_parameters() == a.numel() + b.numel()


def test_order_2_is_the_singular_value_decomposition() -> None:
    matrix, shape = toy(*SIDES), Factorisation((48,), (60,))
    values = torch.linalg.svdvals(matrix)
    by_rank = tensor_train(matrix, shape, ranks=[7])
    assert by_rank.ranks == (1, 7, 1)
    assert (matrix - by_rank.matrix()).norm() == pytest.approx(float(values[7:].norm()))
    # Just enough for rank 7, and just too little.
    tail = float(values[7:].norm() / values.norm())
    assert tensor_train(matrix, shape, epsilon=tail * 1.0001).ranks[1] == 7
    assert tensor_train(matrix, shape, epsilon=tail * 0.9999).ranks[1] == 8


def test_given_ranks_are_cut_to_what_is_possible() -> None:
    shape = Factorisation((6, 8), (6, 10))
    assert tensor_train(toy(*SIDES), shape, ranks=[100, 5, 100]).ranks == (1, 6, 5, 10, 1)
    assert tensor_train(toy(*SIDES), shape, ranks=[4, 3, 2]).ranks == (1, 4, 3, 2, 1)


def test_nothing_has_rank_one() -> None:
    found = tensor_train(torch.zeros(48, 60), Factorisation((6, 8), (6, 10)), epsilon=0.5)
    assert found.ranks == (1, 1, 1, 1, 1)
    assert not found.matrix().any()


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_a_residual_only_helps_and_more_of_it_helps_more(epsilon: float) -> None:
    """Saten's error is at most the train's at the same ε, and falls with the number of nonzeros."""
    residual = toy(*SIDES) - train(4, epsilon).matrix()
    errors = [float(residual.norm())]
    for zeros in ("100%", "95%", "80%", "50%", "0%"):
        mask = sparsity_named(f"unstructured:{zeros}").mask(residual.abs())
        errors.append(float((residual - residual * mask).norm()))
    assert errors[0] == errors[1]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.95 * errors[0]
    assert errors[-1] == 0


def test_refusals() -> None:
    matrix, shape = toy(*SIDES), Factorisation((6, 8), (6, 10))
    for arguments in ({}, {"epsilon": 0.1, "ranks": [1, 1, 1]}):
        with pytest.raises(ExportError, match="both or neither"):
            tensor_train(matrix, shape, **arguments)
    for epsilon in (-0.1, float("nan")):
        with pytest.raises(ExportError, match="it is"):
            tensor_train(matrix, shape, epsilon=epsilon)
    for ranks in ([1, 1], [1, 0, 1]):
        with pytest.raises(ExportError, match="3 ranks"):
            tensor_train(matrix, shape, ranks=ranks)
    with pytest.raises(ExportError, match=r"\(60, 48\)"):
        tensor_train(matrix.T, shape, epsilon=0.1)


def test_unfoldings_that_are_known_change_nothing() -> None:
    matrix, shape = toy(*SIDES), factorisation(*SIDES, 4)
    known = Unfoldings()
    for epsilon in (0.5, 0.9, 0.51, 0.5, 0.1):
        fresh = tensor_train(matrix, shape, epsilon=epsilon)
        again = tensor_train(matrix, shape, epsilon=epsilon, unfoldings=known)
        assert fresh.ranks == again.ranks
        assert all(torch.equal(one, other) for one, other in zip(fresh.cores, again.cores, strict=True))
