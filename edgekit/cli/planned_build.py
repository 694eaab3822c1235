"""What a build is planned to take, before it begins; and beside what it took, after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.plan.words import duration, gigabytes, size

if TYPE_CHECKING:
    from edgekit.build.bundle_engine import PreparedBuild
    from edgekit.bundle import EngineEntry
    from edgekit.plan.build_cost import BuildCost
    from edgekit.plan.estimate import Estimate


def planned_line(prepared: PreparedBuild) -> str:
    """One line for a person who waits."""
    from edgekit.cli.display_progress import duration as seconds
    from edgekit.device.host import memory

    planned, available = prepared.planned, memory()
    of_memory = f" of {gigabytes(available.available_bytes)} available" if available is not None else ""
    time = duration(planned.seconds) if planned.seconds is not None else f"time not known for {planned.backend}"
    before = f"; it took {seconds(prepared.seconds_before)} the last time" if prepared.seconds_before else ""
    return (
        f"planned: {time}, {size(planned.memory)} of memory{of_memory}, engine of {gigabytes(planned.engine.value)}"
        f"{before}"
    )


def expected_seconds(prepared: PreparedBuild) -> float | None:
    """For the time that is left: as the last time, else as planned; None where neither is known."""
    if prepared.seconds_before is not None:
        return prepared.seconds_before
    return prepared.planned.seconds.value if prepared.planned.seconds is not None else None


def beside(planned: BuildCost, entry: EngineEntry) -> dict[str, dict[str, Any]]:
    """Planned and measured, JSON-ready; None for what is not known."""
    pairs: dict[str, tuple[Estimate | None, float | None]] = {
        "seconds": (planned.seconds, entry.build_seconds),
        "peak_memory_bytes": (planned.memory, entry.build_peak_memory_bytes),
        "engine_bytes": (planned.engine, entry.engine_bytes),
    }
    return {
        name: {
            "planned": estimate.facts() if estimate is not None else None,
            "measured": measured,
            "measured_over_planned": measured / estimate.value if estimate is not None and measured else None,
        }
        for name, (estimate, measured) in pairs.items()
    }


def beside_rows(planned: BuildCost, entry: EngineEntry) -> list[tuple[str, str, str, str]]:
    """The same as rows of a table: name, planned, measured, measured / planned."""
    facts = beside(planned, entry)
    time = duration(planned.seconds) if planned.seconds is not None else "not known"
    peak = entry.build_peak_memory_bytes
    shown = {
        "seconds": ("build time", time, f"{entry.build_seconds:.1f} s"),
        "peak_memory_bytes": ("peak memory", size(planned.memory), "not told" if peak is None else gigabytes(peak)),
        "engine_bytes": ("engine", size(planned.engine), gigabytes(entry.engine_bytes)),
    }
    rows = []
    for name, cells in shown.items():
        ratio = facts[name]["measured_over_planned"]
        rows.append((*cells, "-" if ratio is None else f"{ratio:.2f}"))
    return rows
