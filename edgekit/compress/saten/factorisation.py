"""A matrix [in, out] as a tensor: modes n_1 … n_p | m_1 … m_q with Π n = in, Π m = out, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from edgekit.errors import ExportError

ORDERS = range(2, 7)


@dataclass(frozen=True)
class Factorisation:
    """Modes of the inputs, then of the outputs; their order is that of the cores."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def modes(self) -> tuple[int, ...]:
        return self.inputs + self.outputs

    @property
    def order(self) -> int:
        return len(self.modes)

    @property
    def split(self) -> int:
        """Cores of the inputs; the rank between them and those of the outputs is `ranks[split]`."""
        return len(self.inputs)

    def ranks(self, largest: int | None = None) -> tuple[int, ...]:
        """r_0 … r_d (r_0 = r_d = 1): the largest that a tensor of these modes can have, none above `largest`."""
        full = [min(prod(self.modes[:k]), prod(self.modes[k:])) for k in range(1, self.order)]
        return (1, *(rank if largest is None else min(rank, largest) for rank in full), 1)

    def parameters(self, ranks: Sequence[int]) -> int:
        """Numbers in the cores: Σ r_{k−1} n_k r_k."""
        return sum(ranks[k] * mode * ranks[k + 1] for k, mode in enumerate(self.modes))

    def multiply_adds(self, ranks: Sequence[int]) -> int:
        """Of one input vector taken through the cores one after another, the inputs' first."""
        total = 0
        for k, mode in enumerate(self.modes):
            waiting = prod(self.inputs[k + 1 :]) if k < self.split else prod(self.outputs[: k - self.split])
            total += ranks[k] * mode * ranks[k + 1] * waiting
        return total

    def pair_parameters(self, ranks: Sequence[int]) -> int:
        """Numbers, and multiply-adds per input vector, of the contracted pair: r (in + out), r the middle rank."""
        return ranks[self.split] * (prod(self.inputs) + prod(self.outputs))


def factorisation(inputs: int, outputs: int, order: int, rank: int | None = None) -> Factorisation:
    """The cheapest factorisation of a matrix [inputs, outputs] into `order` modes.

    Args:
        rank: the rank that is expected: the fewest parameters with no rank above it win. None takes the smallest sum
            of modes (Saten, section 3.1). Multiply-adds decide between equals.

    Raises:
        ExportError: an order out of range, or a side with too few prime factors.
    """
    if order not in ORDERS:
        raise ExportError(
            f"a tensor train has order {ORDERS[0]} to {ORDERS[-1]}", f"{order} was asked for", "choose another order"
        )
    found = [
        Factorisation(left, right)
        for parts in sorted({order // 2, order - order // 2})
        for left in _ordered_factors(inputs, parts)
        for right in _ordered_factors(outputs, order - parts)
    ]
    if not found:
        raise ExportError(
            f"order {order} needs {order // 2} factors above 1 of one side and {order - order // 2} of the other",
            f"{inputs} × {outputs} cannot be factored so",
            "choose a smaller order",
        )

    def cost(shape: Factorisation) -> tuple[int, int]:
        ranks = shape.ranks(rank)
        first = sum(shape.modes) if rank is None else shape.parameters(ranks)
        return first, shape.multiply_adds(ranks)

    return min(found, key=cost)


@lru_cache(maxsize=1024)
def _ordered_factors(number: int, parts: int) -> tuple[tuple[int, ...], ...]:
    """All ways to write a number as an ordered product of factors above 1 (of the number itself for one part)."""
    return tuple(_products(number, parts))


def _products(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (number,)
        return
    for first in range(2, number // 2 + 1):
        if number % first == 0:
            for rest in _products(number // first, parts - 1):
                yield (first, *rest)
