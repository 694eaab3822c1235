"""A compressed matrix as something that can be trained: its positions fixed, its numbers parameters.

Numbers that are stored as codes, and on request the codes of a base, are rounded in every forward pass and their
gradients passed on as if they were not (Bengio et al., arXiv 1308.3432), so that training sees what will be stored and
nothing is lost at the end.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.compress.blockwise import SMALLEST_SCALE
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


class Blocks(nn.Module):
    """Of a `Base` whose scales or codes are trained: it multiplies the weight, which holds the codes less zero points;
    codes that are trained, before they are rounded."""

    low: Tensor

    def __init__(self, piece: Base, *, scales: bool, codes: bool) -> None:
        super().__init__()
        self._base, self._codes = piece, codes
        self._top = 2**piece.quantized.bits - 1
        values = torch.from_numpy(piece.quantized.scales.copy())
        # Engines that want scales above zero (`Settings.symmetric`) have them, and keep them.
        self._least = float(SMALLEST_SCALE) if bool((values > 0).all()) else -math.inf
        if scales:
            self.scales = nn.Parameter(values)
        else:
            self.register_buffer("scales", values, persistent=False)
        low = -torch.from_numpy(piece.quantized.zero_points.astype(np.float32))[..., None]
        self.register_buffer("low", low, persistent=False)

    def held(self, target: Tensor | None) -> Tensor:
        """What the weight holds at the beginning, float32 [N, K].

        Codes to be trained begin where what they stand for, `target` [N, K], is on their scale, but within their own
        rounding: the matrix is as it is stored, and those change first that were nearly rounded to another.
        """
        base = self._base.quantized
        codes = torch.from_numpy(replace(base, scales=np.ones_like(base.scales)).dequantized())
        if not self._codes or target is None:
            return codes
        scales = self._spread(self.scales.detach(), codes.shape[1])
        exact = torch.where(scales == 0, codes, target / scales)
        return exact.clamp(codes - _SLACK, codes + _SLACK)

    def add(self, weight: Tensor) -> Tensor:
        """weight [N, K], as it is held, times scales."""
        inputs, blocks = weight.shape[1], self._blocks(weight)
        if self._codes:
            near = blocks.clamp(self.low - _SLACK, self.low + self._top + _SLACK)
            blocks = rounded_through(near, near.round())
        return (blocks * as_half(self.scales.clamp(min=self._least))[..., None]).flatten(1)[:, :inputs]

    def stored(self, weight: Tensor) -> Base:
        """As it is stored now, for what the weight [N, K] holds now."""
        base = self._base.quantized
        codes = base.codes.copy()
        if self._codes:
            found = self._blocks(weight.detach()).round() - self.low
            codes = found.clamp(0, self._top).numpy().astype(np.uint8)
        scales = half(self.scales.detach().clamp(min=self._least).numpy()).astype(np.float32)
        return Base(replace(base, codes=codes, scales=scales))

    def _blocks(self, weight: Tensor) -> Tensor:
        """[N, K/block, block]; zeros where a row ends within a block."""
        rows, count, block = self._base.quantized.codes.shape
        return functional.pad(weight, (0, count * block - weight.shape[1])).view(rows, count, block)

    def _spread(self, scales: Tensor, inputs: int) -> Tensor:
        """One for each weight: [N, K]."""
        return scales.repeat_interleave(self._base.quantized.codes.shape[2], dim=1)[:, :inputs]


_TRAINED: dict[type[Any], type[Any]] = {Pair: LowRank, Train: Cores, Sparse: Entries}


class Summands(nn.Module):
    """The parametrisation of a weight [N, K]: what the layer's own weight holds goes in, the matrix comes out.

    Attributes:
        parts: trained pieces by their place in the matrix.
        codes: whether the base's codes are trained, which are what is held then.
    """

    def __init__(self, matrix: CompressedMatrix, *, scales: bool = False, codes: bool = False) -> None:
        """`scales`, `codes`: train those of the base too."""
        super().__init__()
        self._matrix = matrix
        self.codes = codes and any(isinstance(piece, Base) for piece in matrix.pieces)
        self.parts = nn.ModuleDict()
        for k, piece in enumerate(matrix.pieces):
            if isinstance(piece, Base) and (scales or codes):
                self.parts[str(k)] = Blocks(piece, scales=scales, codes=codes)
            elif type(piece) in _TRAINED:
                self.parts[str(k)] = _TRAINED[type(piece)](piece)

    def held(self, original: Tensor | None = None) -> Tensor:
        """float32 [N, K], the forward pass's argument: the base, or its codes where they or their scales are trained,
        which begin near the original [N, K]'s."""
        pieces = self._matrix.pieces
        for k, piece in enumerate(pieces):
            if isinstance(piece, Base):
                if str(k) not in self.parts:
                    return torch.from_numpy(piece.dense())
                rest = sum((each.dense() for each in pieces if each is not piece), np.zeros((), np.float32))
                blocks = cast(Blocks, self.parts[str(k)])
                return blocks.held(None if original is None else original - torch.from_numpy(np.asarray(rest)))
        return torch.zeros(self._matrix.shape)

    def forward(self, held: Tensor) -> Tensor:
        """float32 [N, K]."""
        # The sum is the weight: only the product with it may be made in fewer digits.
        with torch.autocast(held.device.type, enabled=False):
            weight = held.float()
            # A base that is trained multiplies, so it comes before what is added.
            for part in sorted(self.parts.values(), key=lambda part: not isinstance(part, Blocks)):
                weight = part.add(weight)  # type: ignore[operator]
            return weight

    def stored(self, held: Tensor) -> CompressedMatrix:
        """As it is stored now, for what the layer's weight holds; the errors of its record are those of the fit."""
        pieces: list[Piece] = list(self._matrix.pieces)
        for k, part in self.parts.items():
            pieces[int(k)] = part.stored(held) if isinstance(part, Blocks) else part.stored()  # type: ignore[operator]
        return replace(self._matrix, pieces=tuple(pieces))
