"""A figure with its uncertainty and what it rests on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A quantity that lies between `low` and `high` and is expected at `value`; `basis` says what that rests on."""

    value: float
    low: float
    high: float
    basis: str

    @classmethod
    def exact(cls, value: float, basis: str) -> Estimate:
        """A figure without uncertainty of its own."""
        return cls(value, value, value, basis)

    @classmethod
    def within(cls, value: float, below: float, above: float, basis: str) -> Estimate:
        """From value · (1 - below) to value · (1 + above)."""
        return cls(value, value * (1 - below), value * (1 + above), basis)

    def scaled(self, factor: float, basis: str = "") -> Estimate:
        """All three times a factor."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, basis or self.basis)

    def plus(self, constant: float, basis: str = "") -> Estimate:
        """All three and a constant."""
        return Estimate(self.value + constant, self.low + constant, self.high + constant, basis or self.basis)

    def inverse(self, basis: str = "") -> Estimate:
        """1 / quantity: a rate from a time."""
        return Estimate(1 / self.value, 1 / self.high, 1 / self.low, basis or self.basis)

    def facts(self) -> dict[str, float | str]:
        """JSON-ready."""
        return {"value": self.value, "low": self.low, "high": self.high, "basis": self.basis}


def total(parts: Iterable[Estimate], basis: str) -> Estimate:
    """The sum. Bounds are added too, which supposes that errors go the same way: the sum is never too narrow."""
    parts = list(parts)
    return Estimate(sum(p.value for p in parts), sum(p.low for p in parts), sum(p.high for p in parts), basis)
