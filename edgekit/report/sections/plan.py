"""What the hardware allows beside what was reached."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.report.blocks import Block, Cell, Figure, Heading, Note, Section, State, Table, Text
from edgekit.report.numbers import percent, plain, quantity
from edgekit.report.planned import Foretold, of_engine, of_kit, reason
from edgekit.report.shape import SAMPLES
from edgekit.report.source import Source
from edgekit.report.svg import Bar, Bars

ORDER = 50
TITLE, LABEL = "Plan and measurement", "Plan"
INTRO = "What the hardware allows, beside what was reached."
#: Captions, and what the figures beside the plan's are.
ON_DEVICE = ("Planned for the device, and measured on it", "measured")
OF_ENGINE = ("Planned for the engine, and what its build told", "told")
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
    """Plans of devices beside what kits measured there and what engines take; here, the bound that bandwidth sets."""
    found = source.document("bench", SHAPE)
    blocks: list[Block] = []
    data: dict[str, Any] = {"devices": {}, "engines": {}, "decodes": None}
    for kit in source.kits:
        device = str(kit.kit["device"])
        shown, data["devices"][device] = _beside(partial(of_kit, source.bundle, kit), *ON_DEVICE)
        blocks += [Heading(device), *shown]
    for engine in source.bundle.manifest.engines:
        if engine.device:
            name = engine.name
            shown, data["engines"][name] = _beside(partial(of_engine, source.bundle, engine), *OF_ENGINE)
            blocks += [Heading(f"Engine {name}, for {engine.device}"), *shown]
    planned = bool(blocks)
    if found is None:
        blocks.append(source.missing("Speed on this machine, which its bandwidth bounds,", "bench"))
        return Section("plan", TITLE, tuple(blocks), INTRO, "ok" if planned else "missing", data=data, label=LABEL)
    if planned:
        blocks.append(Heading("This machine"))
    blocks += [*source.stale("bench"), *_bound(found["decodes"])]
    data["decodes"] = [{"depth": row["depth"], "roofline": row["roofline"]} for row in found["decodes"]]
    state: State = "ok" if source.state("bench") == "ok" else "stale"
    return Section("plan", TITLE, tuple(blocks), INTRO, state, data=data, label=LABEL)


def _beside(
    compared: Callable[[], list[Foretold]], caption: str, measured: str
) -> tuple[tuple[Block, ...], list[dict[str, Any]]]:
    """A plan beside what came of it, and the same for JSON."""
    try:
        found = compared()
    except EdgekitError as error:
        return (Note(reason(error), "warn"),), []
    if not found:
        return (Note("It holds nothing that the planner foretells."),), []
    rows: tuple[tuple[Text, ...], ...] = tuple(
        (
            each.name,
            Cell(quantity(each.plan.value, each.unit), note=each.range),
            quantity(each.measured, each.unit),
            plain(each.ratio),
            Cell("within", "good") if each.within else Cell("outside", "warn"),
        )
        for each in found
    )
    head = ("", "planned", measured, f"{measured} / planned", "the plan's range")
    data = [{"name": e.name, "unit": e.unit, "planned": e.plan.facts(), "measured": e.measured} for e in found]
    return (Table(caption, head, rows, (1, 2, 3)),), data


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
