"""Factors within a number of bytes: a pair in the metric, or a tensor train by the plain error."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

from torch import Tensor

from edgekit.compress.saten.factorisation import factorisation
from edgekit.compress.saten.low_rank import nearest_pair, stored_pair
from edgekit.compress.saten.pieces import Pair, Train
from edgekit.compress.saten.storage import stored, stored_bytes
from edgekit.compress.saten.tensor_train import Unfoldings, tensor_train
from edgekit.compress.saten.whitening import Metric

#: Halvings of the interval of errors that a train is sought in: ε to a ten-thousandth.
HALVINGS = 14


def pair_bytes(shape: tuple[int, int], rank: int, dtype: str, block: int) -> int:
    """What a pair of that rank takes."""
    return sum(stored_bytes(rank * side, dtype, block) for side in shape)


def largest_rank(shape: tuple[int, int], budget: int, dtype: str, block: int) -> int:
    """The largest rank of a pair within the budget; 0 where rank 1 does not fit."""
    top = min(shape)
    rank = min(top, max(0, budget) // max(1, pair_bytes(shape, top, dtype, block) // top))
    while rank and pair_bytes(shape, rank, dtype, block) > budget:
        rank -= 1
    return rank


def pair_within(weight: Tensor, metric: Metric, budget: int, dtype: str, block: int) -> Pair | None:
    """The best pair that the budget holds; None where it holds none."""
    rank = largest_rank((weight.shape[0], weight.shape[1]), budget, dtype, block)
    return stored_pair(weight, nearest_pair(weight, rank, metric), metric, dtype, block) if rank else None


def train_within(weight: Tensor, order: int, budget: int, dtype: str, block: int) -> Train | None:
    """The train of Wᵀ with the smallest ε that the budget holds, by bisection; None where it holds none.

    Modes have the smallest sum, as in the paper: a rank to be expected is not known before.
    """
    matrix = weight.T.double()
    shape = factorisation(matrix.shape[0], matrix.shape[1], order)
    unfoldings = Unfoldings()

    def within(epsilon: float) -> Train | None:
        train = tensor_train(matrix, shape, epsilon=epsilon, unfoldings=unfoldings)
        if sum(stored_bytes(core.numel(), dtype, block) for core in train.cores) > budget:
            return None
        return Train(shape, tuple(stored(core.float().numpy(), dtype, block) for core in train.cores))

    return _least(within, sqrt(order - 1))


def _least(within: Callable[[float], Train | None], high: float) -> Train | None:
    """The last success of a bisection of [0, high] for the smallest ε that succeeds; at high all ranks are 1."""
    low, best = 0.0, within(high)
    for _ in range(HALVINGS if best else 0):
        middle = (low + high) / 2
        found = within(middle)
        if found is None:
            low = middle
        else:
            high, best = middle, found
    return best
