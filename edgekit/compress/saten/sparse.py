"""Which weights of a residual are kept: by their number, by groups along the inputs, by rows or by blocks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from edgekit.errors import ExportError


class Sparsity(Protocol):
    """A pattern of kept weights."""

    def mask(self, scores: Tensor) -> Tensor:
        """bool [N, K]: the weights to keep, those of the largest scores [N, K] (none negative) that the pattern
        allows; exactly as many as it says. ExportError where the shape does not suit."""

    def spelled(self) -> str:
        """What `sparsity_named` reads."""


@dataclass(frozen=True)
class Nothing:
    """Nothing is kept."""

    def mask(self, scores: Tensor) -> Tensor:
        return torch.zeros_like(scores, dtype=torch.bool)

    def spelled(self) -> str:
        return "none"


@dataclass(frozen=True)
class Unstructured:
    """The largest of the whole matrix; `zeros` is the share that is not kept."""

    zeros: float

    def mask(self, scores: Tensor) -> Tensor:
        return largest(scores, kept_of(scores.numel(), self.zeros))

    def spelled(self) -> str:
        return f"unstructured:{_percent(self.zeros)}"


@dataclass(frozen=True)
class Groups:
    """`kept` of every `of` consecutive inputs of each output (2:4 is what sparse tensor cores multiply)."""

    kept: int
    of: int

    def mask(self, scores: Tensor) -> Tensor:
        rows, inputs = scores.shape
        if inputs % self.of:
            raise ExportError(
                f"{self.spelled()} needs a number of inputs that {self.of} divides",
                f"the matrix has {inputs}",
                "choose another sparsity for it",
            )
        return _largest_in_rows(scores.reshape(-1, self.of), self.kept).reshape(rows, inputs)

    def spelled(self) -> str:
        return f"{self.kept}:{self.of}"


@dataclass(frozen=True)
class Rows:
    """Whole outputs, those with the largest sum of squared scores; `zeros` is the share that is not kept."""

    zeros: float

    def mask(self, scores: Tensor) -> Tensor:
        kept = largest(scores.square().sum(1), kept_of(len(scores), self.zeros))
        return kept[:, None].expand_as(scores).clone()

    def spelled(self) -> str:
        return f"row:{_percent(self.zeros)}"


@dataclass(frozen=True)
class Blocks:
    """Blocks of `rows` outputs × `columns` inputs, those with the largest sum of squared scores."""

    rows: int
    columns: int
    zeros: float

    def mask(self, scores: Tensor) -> Tensor:
        outputs, inputs = scores.shape
        if outputs % self.rows or inputs % self.columns:
            raise ExportError(
                f"{self.spelled()} needs a matrix of whole blocks",
                f"the matrix is {outputs} × {inputs}",
                "choose a block whose sides divide it",
            )
        grid = scores.square().reshape(outputs // self.rows, self.rows, inputs // self.columns, self.columns)
        kept = largest(grid.sum((1, 3)), kept_of(grid.shape[0] * grid.shape[2], self.zeros))
        return kept[:, None, :, None].expand_as(grid).reshape(outputs, inputs)

    def spelled(self) -> str:
        return f"block:{self.rows}x{self.columns}:{_percent(self.zeros)}"


def kept_of(count: int, zeros: float) -> int:
    """How many of `count` are kept when the share `zeros` is not, to the nearest."""
    return round(count * (1 - zeros))


def largest(scores: Tensor, count: int) -> Tensor:
    """bool of the same shape: exactly `count` of the largest."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[scores.flatten().topk(count, sorted=False).indices] = True
    return mask.reshape(scores.shape)


def _largest_in_rows(scores: Tensor, count: int) -> Tensor:
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(count, dim=1).indices, True)


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"


_SHARE = r"(\d+(?:\.\d+)?)%"
_SPELLINGS: list[tuple[str, Callable[[re.Match[str]], Sparsity]]] = [
    (r"none", lambda found: Nothing()),
    (rf"unstructured:{_SHARE}", lambda found: Unstructured(float(found[1]) / 100)),
    (r"(\d+):(\d+)", lambda found: Groups(int(found[1]), int(found[2]))),
    (rf"row(?::{_SHARE})?", lambda found: Rows(float(found[1] or 90) / 100)),
    (rf"block:(\d+)x(\d+):{_SHARE}", lambda found: Blocks(int(found[1]), int(found[2]), float(found[3]) / 100)),
]


def sparsity_named(text: str) -> Sparsity:
    """Read `none`, `unstructured:95%`, `2:4`, `row:90%` or `block:4x16:90%` (a share is that of the zeros); `row` alone
    is `row:90%`.

    Raises:
        ExportError: another spelling, a share above 100 %, more kept of a group than it has, or empty groups.
    """
    for pattern, make in _SPELLINGS:
        if found := re.fullmatch(pattern, text):
            sparsity = make(found)
            if _possible(sparsity):
                return sparsity
    raise ExportError(
        "a sparsity is none, unstructured:95%, 2:4 (kept:group), row:90% or block:4x16:90%; a share is of zeros",
        f"{text!r} was given",
        "choose one of these",
    )


def _possible(sparsity: Sparsity) -> bool:
    """Whether shares are at most all and groups and blocks hold something."""
    if isinstance(sparsity, Groups):
        return 1 <= sparsity.kept <= sparsity.of
    if isinstance(sparsity, Blocks) and not (sparsity.rows and sparsity.columns):
        return False
    return not isinstance(sparsity, (Unstructured, Rows, Blocks)) or sparsity.zeros <= 1
