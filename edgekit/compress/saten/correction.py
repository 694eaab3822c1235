"""Factors plus a sparse part near a given matrix, both as stored, within a number of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.factors import pair_within, train_within
from edgekit.compress.saten.pieces import Pair, Piece, Train
from edgekit.compress.saten.request import Request
from edgekit.compress.saten.residual import fitted_values
from edgekit.compress.saten.sparse import Nothing, Sparsity, Unstructured
from edgekit.compress.saten.sparse_format import Sparse, sparse, sparse_bytes

#: Factors lose little at 4 bits, being fitted again after rounding; single weights are worth 8.
FACTORS, VALUES = "int4", "int8"


@dataclass(frozen=True)
class Split:
    """A pattern for the sparse part and what it leaves for the factors, in bytes."""

    sparsity: Sparsity
    for_factors: int


def splits(request: Request, budget: int, shares: Iterable[float]) -> list[Split]:
    """One for each share of the budget that an unstructured sparse part may take, or the only one that is asked for;
    those that do not fit are left out."""
    asked, values = request.settings.sparsity, request.settings.values or VALUES
    patterns = [asked] if asked else [_filling(request, int(share * budget), values) for share in shares]
    sizes = {p: sparse_bytes(request.shape, p, values, request.settings.block) for p in patterns}
    return [Split(pattern, budget - size) for pattern, size in sizes.items() if size <= budget]


def _filling(request: Request, budget: int, values: str) -> Sparsity:
    """The unstructured pattern with most values within the budget, by bisection of their number."""
    size, block = request.weight.numel(), request.settings.block
    fits, beyond = 0, size + 1
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if sparse_bytes(request.shape, Unstructured(1 - middle / size), values, block) <= budget:
            fits = middle
        else:
            beyond = middle
    return Unstructured(1 - fits / size) if fits else Nothing()


def stored_factors(request: Request, error: Tensor, budget: int) -> Pair | Train | None:
    """Factors near an error [N, K]; None where the budget holds none."""
    settings = request.settings
    dtype, order = settings.factors or FACTORS, settings.order or 2
    if order > 2:
        return train_within(error, order, budget, dtype, settings.block)
    return pair_within(error, request.metric, budget, dtype, settings.block)


def stored_sparse(request: Request, error: Tensor, mask: Tensor, sparsity: Sparsity) -> Sparse | None:
    """The best values within a mask [N, K] for an error [N, K]; None for an empty pattern."""
    if isinstance(sparsity, Nothing):
        return None
    metric, settings = request.metric, request.settings
    weights = (metric.scale * metric.root[:, None]).square()
    values = fitted_values(error.float(), mask, metric)  # float32 will do for values of 8 bits
    return sparse(values, mask, sparsity, settings.values or VALUES, settings.block, weights)


def dense(piece: Piece | None, like: Tensor) -> Tensor:
    """float64 [N, K]; zeros for no piece."""
    return torch.zeros_like(like, dtype=torch.float64) if piece is None else torch.from_numpy(piece.dense()).double()


def best_of(tries: Iterable[CompressedMatrix]) -> CompressedMatrix | None:
    """The one with the smallest weighted error; None of none."""
    return min(tries, key=lambda found: found.weighted_error, default=None)


@dataclass(frozen=True, eq=False)
class Begun:
    """An alternation after its first round, and the rounds to come."""

    first: CompressedMatrix
    rest: Iterator[CompressedMatrix]


def begun(tries: Iterable[Iterator[CompressedMatrix]]) -> list[Begun]:
    """Several alternations, each giving a matrix per round; those that give none are left out."""
    return [Begun(first, rounds) for rounds in tries if (first := next(rounds, None)) is not None]


def leading(found: Iterable[Begun]) -> Begun | None:
    """The one that is best after its first round; None of none."""
    return min(found, key=lambda each: each.first.weighted_error, default=None)


def best_of_rounds(found: Iterable[Begun]) -> CompressedMatrix | None:
    """The one that leads goes on alone, and its best round wins: rounding may undo the last one's gain."""
    leader = leading(found)
    return best_of([leader.first, *leader.rest]) if leader else None
