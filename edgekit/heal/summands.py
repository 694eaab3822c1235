"""A compressed matrix as something that can be trained: its codes and positions fixed, its numbers parameters.

Numbers that are stored as codes are rounded in every forward pass and their gradients passed on as if they were not
(Bengio et al., arXiv 1308.3432), so that training sees what will be stored and nothing is lost at the end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.factorisation import Factorisation
from edgekit.compress.saten.pieces import Base, Pair, Piece, Train
from edgekit.compress.saten.sparse_format import Sparse
from edgekit.compress.saten.storage import CODES, FLOAT, Stored, half, packed, unpacked
from edgekit.compress.saten.tensor_train import TensorTrain

#: How far codes may be from their range before they are rounded: they must find back.
_SLACK = 0.49


def rounded_through(exact: Tensor, rounded: Tensor) -> Tensor:
    """The rounded numbers, with the gradient of the exact ones."""
    return exact + (rounded - exact).detach()


def as_half(values: Tensor) -> Tensor:
    """What float16 holds of them, in their own type, with their gradient."""
    return rounded_through(values, values.half().to(values.dtype))


class Numbers(nn.Module):
    """An array that is stored as float16, or as codes with scales; both are trained."""

    def __init__(self, store: Stored) -> None:
        super().__init__()
        self._store = store
        if store.dtype == FLOAT:
            self.values = nn.Parameter(torch.from_numpy(store.values().ravel()))
            return
        self._middle = 2 ** (CODES[store.dtype] - 1)
        codes = unpacked(store.arrays["codes"], CODES[store.dtype], int(np.prod(store.shape)))
        self.codes = nn.Parameter(torch.from_numpy(codes.astype(np.float32) - self._middle))
        self.scales = nn.Parameter(torch.from_numpy(store.arrays["scales"].astype(np.float32)))

    def forward(self) -> Tensor:
        """float32, in the array's shape."""
        if self._store.dtype == FLOAT:
            return as_half(self.values).view(self._store.shape)
        scales = as_half(self.scales).repeat_interleave(self._store.block)[: self.codes.numel()]
        near = self.codes.clamp(-self._middle - _SLACK, self._middle - 1 + _SLACK)
        return (rounded_through(near, near.round()) * scales).view(self._store.shape)

    def stored(self) -> Stored:
        """As it is stored now: of the same dtype, block and bytes."""
        if self._store.dtype == FLOAT:
            return replace(self._store, arrays={"values": half(self.values.detach().numpy())})
        codes = self.codes.detach().round().clamp(-self._middle, self._middle - 1) + self._middle
        found = packed(codes.numpy().astype(np.uint8), CODES[self._store.dtype])
        return replace(self._store, arrays={"codes": found, "scales": half(self.scales.detach().numpy())})


class LowRank(nn.Module):
    """Of a `Pair`."""

    def __init__(self, piece: Pair) -> None:
        super().__init__()
        self.a, self.b = Numbers(piece.inputs), Numbers(piece.outputs)

    def add(self, weight: Tensor) -> Tensor:
        """weight [N, K] and the piece."""
        return torch.addmm(weight, self.b().T, self.a())

    def stored(self) -> Pair:
        """As it is stored now."""
        return Pair(self.a.stored(), self.b.stored())


class Cores(nn.Module):
    """Of a `Train`."""

    def __init__(self, piece: Train) -> None:
        super().__init__()
        self._shape: Factorisation = piece.shape
        self.cores = nn.ModuleList(Numbers(core) for core in piece.cores)

    def add(self, weight: Tensor) -> Tensor:
        """weight [N, K] and the piece."""
        return weight + TensorTrain(self._shape, tuple(core() for core in self.cores)).matrix().T

    def stored(self) -> Train:
        """As it is stored now."""
        return Train(self._shape, tuple(cast(Numbers, core).stored() for core in self.cores))


class Entries(nn.Module):
    """Of a `Sparse`; its positions stay."""

    places: Tensor

    def __init__(self, piece: Sparse) -> None:
        super().__init__()
        self._positions = piece.positions
        self.value = Numbers(piece.values)
        self.register_buffer("places", torch.from_numpy(np.flatnonzero(piece.positions.mask())), persistent=False)

    def add(self, weight: Tensor) -> Tensor:
        """weight [N, K] and the piece."""
        return weight.flatten().index_add(0, self.places, self.value().flatten()).view(weight.shape)

    def stored(self) -> Sparse:
        """As it is stored now."""
        return Sparse(self._positions, self.value.stored())


class Scaled(nn.Module):
    """Of a `Base` whose scales are trained: it multiplies the weight, which holds the codes."""

    def __init__(self, piece: Base) -> None:
        super().__init__()
        self._base = piece
        self.scales = nn.Parameter(torch.from_numpy(piece.quantized.scales.copy()))

    def add(self, weight: Tensor) -> Tensor:
        """weight [N, K], codes less zero points, times scales."""
        block = self._base.quantized.codes.shape[2]
        return weight * as_half(self.scales).repeat_interleave(block, dim=1)[:, : weight.shape[1]]

    def stored(self) -> Base:
        """As it is stored now."""
        scales = half(self.scales.detach().numpy()).astype(np.float32)
        return Base(replace(self._base.quantized, scales=scales))


_TRAINED: dict[type[Any], type[Any]] = {Pair: LowRank, Train: Cores, Sparse: Entries}


class Summands(nn.Module):
    """The parametrisation of a weight [N, K]: what is frozen goes in, the matrix comes out.

    Attributes:
        parts: trained pieces by their place in the matrix.
    """

    def __init__(self, matrix: CompressedMatrix, *, scales: bool = False) -> None:
        """`scales`: train those of the base too."""
        super().__init__()
        self._matrix = matrix
        self.parts = nn.ModuleDict()
        for k, piece in enumerate(matrix.pieces):
            if isinstance(piece, Base) and scales:
                self.parts[str(k)] = Scaled(piece)
            elif type(piece) in _TRAINED:
                self.parts[str(k)] = _TRAINED[type(piece)](piece)

    def frozen(self) -> Tensor:
        """float32 [N, K], the forward pass's argument: the base, or its codes where its scales are trained."""
        found = torch.zeros(self._matrix.shape)
        for k, piece in enumerate(self._matrix.pieces):
            if not isinstance(piece, Base):
                continue
            base = piece.quantized
            if str(k) in self.parts:
                base = replace(base, scales=np.ones_like(base.scales))
            found += torch.from_numpy(base.dequantized())
        return found

    def forward(self, frozen: Tensor) -> Tensor:
        """float32 [N, K]."""
        # The sum is the weight: only the product with it may be made in fewer digits.
        with torch.autocast(frozen.device.type, enabled=False):
            weight = frozen.float()
            # A base whose scales are trained multiplies, so it comes before what is added.
            for part in sorted(self.parts.values(), key=lambda part: not isinstance(part, Scaled)):
                weight = part.add(weight)  # type: ignore[operator]
            return weight

    def stored(self) -> CompressedMatrix:
        """As it is stored now; the errors of its record are those of the fit."""
        pieces: list[Piece] = list(self._matrix.pieces)
        for k, part in self.parts.items():
            pieces[int(k)] = part.stored()  # type: ignore[operator]
        return replace(self._matrix, pieces=tuple(pieces))
