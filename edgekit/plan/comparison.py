"""Plans of one model side by side, a device in each row: for the terminal and the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.plan.plan import Plan
from edgekit.plan.words import duration, gigabytes, rate

#: The column whose cells are verdicts.
VERDICT = "verdict"

#: Columns by their headings, the device left out.
_COLUMNS: dict[str, Callable[[Plan], str]] = {
    "mode": lambda plan: plan.machine.mode.name,
    VERDICT: lambda plan: plan.run_verdict,
    "memory": lambda plan: gigabytes(plan.memory.total.value),
    "available": lambda plan: gigabytes(plan.memory.available),
    "build": lambda plan: gigabytes(plan.build.memory.value),
    "tokens/s": lambda plan: rate(plan.speed.tokens_per_s),
    "limited by": lambda plan: plan.speed.step.limit,
    "first token": lambda plan: duration(plan.speed.first_token_s) if plan.speed.first_token_s else "unknown",
}

#: More of them, where drafts are planned.
_OF_DRAFTS: dict[str, Callable[[Plan], str]] = {
    "drafted tokens/s": lambda plan: "" if plan.drafting is None else rate(plan.drafting.tokens_per_s),
    "speed-up": lambda plan: (
        "" if plan.drafting is None else f"{plan.drafting.best_speed_up:.2f} with {plan.drafting.best}"
    ),
}


def compared(plans: Sequence[Plan]) -> list[dict[str, str]]:
    """What to compare of each plan, by the columns' headings; the same for all, and of drafts where one has them."""
    columns = _COLUMNS | (_OF_DRAFTS if any(plan.drafting is not None for plan in plans) else {})
    return [{heading: cell(plan) for heading, cell in columns.items()} for plan in plans]
