"""The most that fits: the largest context and the largest batch."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.errors import EdgekitError
from edgekit.plan.plan import Plan, changed

LARGEST_BATCH = 1024


def largest_context(plan: Plan) -> int | None:
    """Tokens of context that are expected to fit with everything else as planned; None if no context does."""
    smallest = min(plan.options.max_input, plan.options.context)

    def fits(context: int) -> bool:
        inputs = min(plan.options.max_input, context)
        return changed(plan, context=context, max_input=inputs, prompt=min(plan.options.prompt, context)).fits

    found = largest(fits, smallest, plan.source.max_position_embeddings)
    return found if found is not None else largest(fits, 1, smallest)


def largest_batch(plan: Plan) -> int | None:
    """Sequences at once that are expected to fit; None if not even one does."""
    return largest(lambda batch: changed(plan, batch=batch).fits, 1, LARGEST_BATCH)


def largest(fits: Callable[[int], bool], low: int, high: int) -> int | None:
    """The largest number from `low` to `high` that fits, if what fits is an initial part of the range."""
    try:
        if not fits(low):
            return None
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
    except EdgekitError:
        return None
    return low
