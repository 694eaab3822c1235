"""What is timed: a kernel's operands on a device, its call, the bytes it moves, and what a user would compare with.

Operands are torch tensors with a first axis of sets: calls rotate among the sets, so that none finds its operands in
the second-level cache. Everything here runs on the CPU too, where tests try it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from edgekit.ops.spec import OperatorError, Tolerance

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
#: Sets take this many times the cache's bytes, and no more than these bytes and sets.
CACHE_TIMES, MOST_BYTES, MOST_SETS = 3, 12 << 30, 1024


class Machine(Protocol):
    """Where it runs: the GPU, or the CPU's stand-in of tests."""

    device: str
    cache_bytes: int
    multiprocessors: int

    def problem(self, stem: str, dtype: str, sizes: Mapping[str, int]) -> str | None: ...

    def workspace_bytes(self, stem: str, dtype: str, sizes: Mapping[str, int]) -> int: ...

    def call(
        self,
        stem: str,
        dtype: str,
        sizes: Mapping[str, int],
        tensors: Mapping[str, Tensor],
        workspace: Tensor,
        scales: tuple[float, float],
    ) -> Callable[[], None]:
        """A call that enqueues the kernels over these tensors, all of which stay where they are."""
        ...


@dataclass
class Work:
    """One row of the table, ready to run.

    Attributes:
        calls: one per set. The first leaves its answer in a place of its own, all others may share one: of those that
            run, the last set's has to come last.
        bytes_moved, operations: of one call, the least that it needs. operations 0: not counted.
        check: compares what `calls[0]` and `calls[-1]` left with the reference; gives (error, 1 - cosine), the worst.
        spoil: makes what `check` compares NaN.
        baselines: name, one call per set of it, and its bytes.
    """

    calls: list[Callable[[], None]]
    bytes_moved: int
    check: Callable[[], tuple[float, float]]
    spoil: Callable[[], None]
    tolerance: Tolerance
    baselines: list[tuple[str, list[Callable[[], Any]], int]]
    operations: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


def sets_of(moved: int, machine: Machine) -> int:
    """How many sets of operands of these bytes it takes that none is in the cache when its turn comes again."""
    wanted = -(-CACHE_TIMES * machine.cache_bytes // moved)
    return max(2, min(wanted, MOST_SETS, MOST_BYTES // moved))


def ends(count: int) -> list[int]:
    """The first and the last."""
    return [0] if count == 1 else [0, count - 1]


def workspace_of(machine: Machine, stem: str, dtype: str, sizes: Mapping[str, int]) -> Tensor:
    """Filled with NaN. Raises OperatorError where the launcher refuses the sizes."""
    if (why := machine.problem(stem, dtype, sizes)) is not None:
        raise OperatorError(f"{stem} runs sizes that fit the GPU", why)
    size = machine.workspace_bytes(stem, dtype, sizes)
    return torch.full((max(size, 16),), 0xFF, device=machine.device, dtype=torch.uint8)


def closeness(got: Tensor, expected: Tensor) -> tuple[float, float]:
    """Largest error in units of the largest expected magnitude, and 1 - cosine; infinite where not all is finite."""
    a, b = got.double().flatten(), expected.double().flatten()
    if a.shape != b.shape or not bool(torch.isfinite(a).all()):
        return math.inf, math.inf
    error = float((a - b).abs().max() / b.abs().max())
    return error, 1 - float(a @ b / (a.norm() * b.norm()))


def worse(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return max(one[0], other[0]), max(one[1], other[1])
