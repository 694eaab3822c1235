"""Sharing a number of bytes between matrices: each takes one of its options, so that the sum of losses is small.

Expected losses add up to second order where matrices' errors do not depend on each other; each is
½ Σ g (ΔW M ΔWᵀ), `CompressedMatrix.loss` (`edgekit.compress.sensitivity` has the source).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.errors import ExportError


@dataclass(frozen=True)
class Option:
    """One way to store a matrix.

    Attributes:
        name: of the way ("dense at 4 bits", "saten-augmented at 3.5"), for plans; of equal ones the first given wins.
        nbytes: everything stored.
        loss: expected, nats per token; or any other number to be kept small.
    """

    name: str
    nbytes: int
    loss: float


def option(matrix: CompressedMatrix) -> Option:
    """A compressed matrix as an option: `dense`, block quantisation alone, is one among the methods."""
    return Option(f"{matrix.method} at {matrix.bits_per_weight:.3g} bits", matrix.nbytes, matrix.loss)


def allocated(options: Mapping[str, Sequence[Option]], budget: int) -> dict[str, Option]:
    """Matrix → its option; together at most `budget` bytes.

    From each matrix's smallest option, steps along its lower convex hull are taken in the order of loss avoided per
    byte: optimal for every budget that is used up by a step (Everett 1963, Lagrange multipliers), and otherwise above
    the optimum by less than the step that did not fit. What is left then goes to the swap that helps most, off the
    hull too.

    Raises:
        ExportError: a matrix without options, or the smallest options together above the budget.
    """
    empty = [name for name, choices in options.items() if not choices]
    if empty:
        raise ExportError("every matrix needs an option", f"{empty[0]} has none", "allow more bytes per matrix")
    hulls = {name: hull(choices) for name, choices in options.items()}
    chosen = dict.fromkeys(options, 0)
    left = budget - sum(steps[0].nbytes for steps in hulls.values())
    if left < 0:
        raise ExportError(
            f"the smallest options of all matrices take {budget - left} bytes together",
            f"{budget} were allowed",
            "allow more, or offer smaller options",
        )
    queue = [_step(hulls[name], 0, name) for name in options if len(hulls[name]) > 1]
    heapify(queue)
    while queue:
        _, name = heappop(queue)
        here, there = hulls[name][chosen[name]], hulls[name][chosen[name] + 1]
        if there.nbytes - here.nbytes > left:
            continue  # later steps of this matrix are larger still
        left -= there.nbytes - here.nbytes
        chosen[name] += 1
        if chosen[name] + 1 < len(hulls[name]):
            heappush(queue, _step(hulls[name], chosen[name], name))
    return _filled(options, {name: hulls[name][place] for name, place in chosen.items()}, left)


def hull(options: Sequence[Option]) -> list[Option]:
    """The options on the lower convex hull of (bytes, loss), smallest first, each with less loss."""
    found: list[Option] = []
    for option in sorted(options, key=lambda option: (option.nbytes, option.loss)):
        if found and option.loss >= found[-1].loss:
            continue
        while len(found) > 1 and _slope(found[-2], found[-1]) <= _slope(found[-2], option):
            found.pop()
        found.append(option)
    return found


def _slope(small: Option, large: Option) -> float:
    """Loss avoided per byte."""
    return (small.loss - large.loss) / (large.nbytes - small.nbytes)


def _step(steps: Sequence[Option], place: int, name: str) -> tuple[float, str]:
    """For the heap: the steepest first, equals by name."""
    return -_slope(steps[place], steps[place + 1]), name


def _filled(options: Mapping[str, Sequence[Option]], chosen: dict[str, Option], left: int) -> dict[str, Option]:
    """Swap single options for ones that fit as long as one lowers the loss, the largest gain first."""
    while True:
        swaps = [
            (chosen[name].loss - option.loss, name, option)
            for name, choices in options.items()
            for option in choices
            if option.loss < chosen[name].loss and option.nbytes - chosen[name].nbytes <= left
        ]
        if not swaps:
            return chosen
        _, name, option = max(swaps, key=lambda swap: swap[0])
        left -= option.nbytes - chosen[name].nbytes
        chosen[name] = option
