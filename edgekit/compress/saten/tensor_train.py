"""Tensor trains: a matrix X [in, out] as cores G_k [r_{k−1}, n_k, r_k] over the modes of a factorisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import Tensor

from edgekit.compress.saten.factorisation import Factorisation
from edgekit.errors import ExportError


@dataclass(frozen=True)
class TensorTrain:
    """Cores [r_{k−1}, n_k, r_k], all of one dtype; r_0 = r_d = 1."""

    shape: Factorisation
    cores: tuple[Tensor, ...]

    @property
    def ranks(self) -> tuple[int, ...]:
        """r_0 … r_d."""
        return (*(core.shape[0] for core in self.cores), 1)

    def parameters(self) -> int:
        return self.shape.parameters(self.ranks)

    def multiply_adds(self) -> int:
        """Per input vector, of the sequential form."""
        return self.shape.multiply_adds(self.ranks)

    def pair_parameters(self) -> int:
        """Numbers and multiply-adds of the contracted pair."""
        return self.shape.pair_parameters(self.ranks)

    def pair(self) -> tuple[Tensor, Tensor]:
        """A [in, r] and B [r, out] with X = A B: the cores of each side contracted."""
        split = self.shape.split
        rank = self.ranks[split]
        left, right = _contracted(self.cores[:split]), _contracted(self.cores[split:])
        return left.reshape(-1, rank), right.reshape(rank, -1)

    def matrix(self) -> Tensor:
        """X [in, out]."""
        left, right = self.pair()
        return left @ right

    def apply(self, x: Tensor) -> Tensor:
        """x X for x [..., in], core by core, without making A, B or X: [..., out].

        The inputs' modes are consumed first to last; the outputs' modes then grow behind one another.
        """
        split = self.shape.split
        state = x.reshape(-1, 1, prod(self.shape.inputs))  # [batch, r, what is left of the inputs]
        for core in self.cores[:split]:
            rank, mode, _ = core.shape
            state = torch.einsum("brnw,rns->bsw", state.reshape(len(state), rank, mode, -1), core)
        state = state.transpose(1, 2)  # [batch, outputs so far, r]
        for core in self.cores[split:]:
            state = torch.einsum("bor,rms->boms", state, core).reshape(len(state), -1, core.shape[2])
        return state.reshape(*x.shape[:-1], prod(self.shape.outputs))


Decomposition = tuple[Tensor, Tensor, Tensor]


class Unfoldings:
    """Singular value decompositions of one matrix's unfoldings for one factorisation: of each mode the last one that
    was asked for. They depend on the ranks before theirs alone, which neighbouring ε have in common."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[tuple[int, ...], Decomposition]] = {}

    def decomposed(self, unfolding: Tensor, ranks: tuple[int, ...]) -> Decomposition:
        """U, σ, Vᵀ of the unfolding that the ranks so far, r_0 … r_k, lead to."""
        known = self._last.get(len(ranks))
        if known is None or known[0] != ranks:
            known = ranks, torch.linalg.svd(unfolding, full_matrices=False)
            self._last[len(ranks)] = known
        return known[1]


def tensor_train(
    matrix: Tensor,
    shape: Factorisation,
    *,
    epsilon: float | None = None,
    ranks: Sequence[int] | None = None,
    unfoldings: Unfoldings | None = None,
) -> TensorTrain:
    """TT-SVD of X [in, out], computed and returned in float64.

    Args:
        epsilon: relative error allowed. Each of the d − 1 truncations keeps the smallest rank whose tail is at most
            δ = ε ‖X‖ / √(d − 1), so that ‖X − X̂‖ ≤ ε ‖X‖ (Oseledets 2011, theorem 2.2 and algorithm 1).
        ranks: r_1 … r_{d−1} instead; larger than possible means full.
        unfoldings: what was computed for this matrix and shape before, and is added to.

    Raises:
        ExportError: the shape is not that of the matrix; not exactly one of epsilon and ranks; a negative epsilon,
            or ranks of another number or below 1.
    """
    _check(matrix, shape, epsilon, ranks)
    rest = matrix.double()
    allowed = 0.0 if epsilon is None else epsilon * float(rest.norm()) / sqrt(max(1, shape.order - 1))
    known = Unfoldings() if unfoldings is None else unfoldings
    cores: list[Tensor] = []
    so_far = [1]
    for k, mode in enumerate(shape.modes[:-1]):
        left, values, right = known.decomposed(rest.reshape(so_far[k] * mode, -1), tuple(so_far))
        kept = _smallest_rank(values, allowed) if ranks is None else min(ranks[k], len(values))
        cores.append(left[:, :kept].reshape(so_far[k], mode, kept))
        rest = values[:kept, None] * right[:kept]
        so_far.append(kept)
    cores.append(rest.reshape(so_far[-1], shape.modes[-1], 1))
    return TensorTrain(shape, tuple(cores))


def _smallest_rank(values: Tensor, allowed: float) -> int:
    """The fewest singular values, at least one, so that the norm of the others is at most `allowed`."""
    tails = values.flip(0).square().cumsum(0).sqrt().flip(0)  # tails[r]: the norm of what rank r leaves out
    return max(1, int((tails > allowed).sum()))


def _contracted(cores: Sequence[Tensor]) -> Tensor:
    """[r_first, Π modes, r_last] of neighbouring cores."""
    product = cores[0]
    for core in cores[1:]:
        product = torch.einsum("anr,rms->anms", product, core).reshape(product.shape[0], -1, core.shape[2])
    return product


def _check(matrix: Tensor, shape: Factorisation, epsilon: float | None, ranks: Sequence[int] | None) -> None:
    sides = (prod(shape.inputs), prod(shape.outputs))
    if tuple(matrix.shape) != sides:
        raise ExportError(
            "a factorisation must multiply up to the matrix",
            f"{shape.inputs} × {shape.outputs} gives {sides}, the matrix is {tuple(matrix.shape)}",
            "factorise this matrix's own shape",
        )
    if (epsilon is None) == (ranks is None):
        raise ExportError("a tensor train is made for an error or for ranks", "both or neither was given", "give one")
    if epsilon is not None and not epsilon >= 0:
        raise ExportError("the relative error must be 0 or more", f"it is {epsilon}", "give another epsilon")
    if ranks is not None and (len(ranks) != shape.order - 1 or min(ranks) < 1):
        raise ExportError(
            f"a train of order {shape.order} has {shape.order - 1} ranks of at least 1",
            f"{tuple(ranks)} was given",
            "give as many ranks as there are neighbouring pairs of modes",
        )
