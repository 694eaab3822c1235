"""What the hardware allows beside what was reached."""

from __future__ import annotations

from typing import Any

from edgekit.report.blocks import Block, Figure, Note, Section, State, Table, Text
from edgekit.report.numbers import percent, quantity
from edgekit.report.shape import SAMPLES
from edgekit.report.source import Source
from edgekit.report.svg import Bar, Bars

ORDER = 50
TITLE = "Plan and measurement"
INTRO = "What the hardware allows, beside what was reached."
_BOUND = {"bytes_per_token": int, "bound_s_per_token": float, "attained": float}
SHAPE = {
    "decodes": [{"depth": int, "s_per_token": SAMPLES, "roofline": (_BOUND, None)}],
    "environment": {"cpu": (str, None)},
}
_CAPTION = (
    "The bound is the time that reading all weights and the cache takes at the memory bandwidth measured on the same "
    "machine: no decode step that reads them from memory can be faster."
)


def section(source: Source) -> Section:
    """The bound of each decode step at the measured bandwidth, and how near the measurement came."""
    found = source.document("bench", SHAPE)
    if found is None:
        note = source.missing("Speed, which a plan is held against,", "bench")
        return Section("plan", TITLE, (note,), INTRO, "missing")
    blocks: list[Block] = [*source.stale("bench"), *_bound(found["decodes"])]
    data = [{"depth": row["depth"], "roofline": row["roofline"]} for row in found["decodes"]]
    state: State = "ok" if source.state("bench") == "ok" else "stale"
    return Section("plan", TITLE, tuple(blocks), INTRO, state, data={"decodes": data})


def _bound(decodes: list[dict[str, Any]]) -> tuple[Block, ...]:
    bounded = [row for row in decodes if row["roofline"] is not None]
    if not bounded:
        return (Note("The memory bandwidth could not be measured where this ran, so there is no bound to show."),)
    bars: list[Bar] = []
    rows: list[tuple[Text, ...]] = []
    for row in bounded:
        depth, line, step = f"{row['depth']:,}", row["roofline"], row["s_per_token"]["median"]
        bars.append(Bar(f"bound, {depth} in the cache", line["bound_s_per_token"]))
        bars.append(Bar(f"measured, {depth} in the cache (median)", step, emphasis=True))
        bytes_read = quantity(line["bytes_per_token"], "B")
        times = (quantity(line["bound_s_per_token"], "s"), quantity(step, "s"))
        rows.append((depth, bytes_read, *times, percent(line["attained"])))
    head = ("tokens in the cache", "read for a token", "bound", "measured", "reached")
    return (
        Figure(Bars("Time of a decode step", "s", tuple(bars)), _CAPTION, numbers=False),
        Table("The bound of decoding", head, tuple(rows), (1, 2, 3, 4)),
    )
