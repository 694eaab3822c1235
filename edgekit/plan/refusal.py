"""The refusal of what does not fit."""

from __future__ import annotations

from edgekit.errors import DoesNotFit
from edgekit.plan.plan import Plan
from edgekit.plan.words import gigabytes


def does_not_fit(plan: Plan, next_step: str) -> DoesNotFit:
    """The error that names what is needed, the most of it, and what the device leaves."""
    largest = max(plan.memory.items, key=lambda item: item.bytes.value)
    return DoesNotFit(
        "what runs must fit in what the device leaves to a program",
        f"{plan.model} as {plan.options.dtype} needs {gigabytes(plan.memory.total.value)}, of which "
        f"{gigabytes(largest.bytes.value)} {largest.name}; {plan.machine.device.title} leaves "
        f"{gigabytes(plan.memory.available)}",
        next_step,
    )
