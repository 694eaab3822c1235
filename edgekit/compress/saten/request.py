"""What a method is asked for, and how it is found."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Protocol

from torch import Tensor

import edgekit.compress.saten.methods as folder
from edgekit.compress.saten.compressed import CompressedMatrix, compressed
from edgekit.compress.saten.pieces import Piece
from edgekit.compress.saten.sparse import Sparsity
from edgekit.compress.saten.whitening import Metric
from edgekit.errors import ExportError


@dataclass(frozen=True)
class Settings:
    """Choices; None leaves one to the method.

    Attributes:
        sparsity: pattern of the sparse part.
        order: of the tensor train; 2 is the contracted pair.
        factors, values: dtypes of `storage`: of the factors, and of the sparse part's values.
        block: numbers of factors and values that share a scale.
        rounds: how often low rank and sparse part (and base) are fitted again to what the others leave.
        base_bits: bit widths a base may have.
        base_blocks: inputs that may share a scale of the base; those that divide the inputs are tried.
        symmetric: bases without zero points and with scales above zero, as TensorRT wants them.
    """

    sparsity: Sparsity | None = None
    order: int | None = None
    factors: str | None = None
    values: str | None = None
    block: int = 64
    rounds: int = 4
    base_bits: tuple[int, ...] = (2, 3, 4)
    base_blocks: tuple[int, ...] = (32, 64, 128, 192, 256, 384)
    symmetric: bool = False


@dataclass(frozen=True)
class Request:
    """One matrix to compress: W float32 [N out, K in], into at most `budget` bytes, everything stored counted."""

    weight: Tensor
    metric: Metric
    budget: int
    settings: Settings

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1]

    @cached_property
    def square(self) -> float:
        """The metric's square of the weights themselves, which errors are measured against."""
        return self.metric.squared(self.weight)

    def made(self, method: str, pieces: Sequence[Piece]) -> CompressedMatrix:
        """Pieces that approximate the weights, measured as they are stored."""
        return compressed(method, self.weight, self.metric, pieces, self.square)


class Method(Protocol):
    """A module of `methods`; its name with hyphens is the method's.

    READS: which choices about a matrix's form it takes, of sparsity, factors, order, base_bits and symmetric.
    """

    READS: tuple[str, ...]

    def fit(self, request: Request) -> CompressedMatrix:
        """The matrix within the budget; ExportError where the method cannot make anything that small."""


def method_names() -> list[str]:
    """Sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(folder.__path__))


def method_named(name: str) -> Method:
    """ExportError lists the known ones."""
    if name not in method_names():
        raise ExportError(
            f"a compression method is one of {', '.join(method_names())}", f"{name!r} was asked for", "choose one"
        )
    found: Method = import_module(f"{folder.__name__}.{name.replace('-', '_')}")
    return found


def too_small(request: Request, what: str, least: int) -> ExportError:
    """The refusal of a budget."""
    size = request.weight.numel()
    return ExportError(
        f"{what} of {request.shape[0]} × {request.shape[1]} weights takes at least {least} bytes "
        f"({8 * least / size:.3g} bits per weight)",
        f"{request.budget} bytes were allowed ({8 * request.budget / size:.3g})",
        "allow more, or choose another method or sparsity",
    )
