"""What `edgekit bench` measured, as blocks: alike for the bundle's own result and for one that came from a device."""

from __future__ import annotations

from typing import Any

from edgekit.report.blocks import Cell, Facts, Figure, Table, Text
from edgekit.report.numbers import plain, quantity
from edgekit.report.shape import NUMBER, SAMPLES, misfit
from edgekit.report.svg import Strips
from edgekit.words import counted

_MEMORY = ({"peak": int}, None)
#: What was timed, in every result.
TIMED = {
    "prompts": [{"tokens": int, "ttft_s": SAMPLES, "tokens_per_s": SAMPLES}],
    "decodes": [{"depth": int, "tokens": int, "s_per_token": SAMPLES, "tokens_per_s": SAMPLES}],
}
SHAPE = {
    **TIMED,
    "parity": (bool, None),
    "session": str,
    "settings": {"repetitions": int, "decode_tokens": int, "threads": (int, None)},
    "environment": {"commit": (str, None), "cpu": (str, None), "system": str, "versions": {}},
    "load": {"cold": ({"load_s": SAMPLES}, None), "warm": ({"load_s": SAMPLES}, None)},
    "memory": {"loaded": _MEMORY, "measured": _MEMORY, "weight_file_bytes": int},
    "read_bandwidth_bytes_per_s": NUMBER,
    "others_cpu_share": ({"mean": float, "samples": [float]}, None),
}


def figures(found: dict[str, Any]) -> list[Figure]:
    """Distributions of decode steps, of the first token of prompts, and of loading."""
    drawn = []
    groups = tuple((f"{row['depth']:,} tokens in the cache", tuple(steps(row))) for row in found["decodes"])
    if groups and all(samples for _, samples in groups):
        each = "a decode step" if "steps_s" in found["decodes"][0] else "the mean step of a repetition"
        caption = f"Every dot is {each}; the box is the middle half, the line the median."
        drawn.append(Figure(Strips("Time of a decode step", "s", "time", groups, from_zero=True), caption))
    groups = tuple((f"prompt of {row['tokens']:,}", tuple(row["ttft_s"]["samples"])) for row in found["prompts"])
    if groups and all(samples for _, samples in groups):
        plot = Strips("Time to the first token", "s", "time", groups, from_zero=True)
        drawn.append(Figure(plot, "From an empty cache; every dot is a repetition."))
    loads = ((state, found.get("load", {}).get(state)) for state in ("cold", "warm"))
    groups = tuple((f"{state} file cache", tuple(load["load_s"]["samples"])) for state, load in loads if load)
    if groups:
        drawn.append(Figure(Strips("Time to load", "s", "time", groups, from_zero=True)))
    return drawn


def steps(row: dict[str, Any]) -> list[float]:
    """Seconds of every decode step; of each repetition's mean step where steps were not kept."""
    kept = row.get("steps_s")
    if not isinstance(kept, list):
        return list(row["s_per_token"]["samples"])
    return [float(step) for repetition in kept for step in repetition]


def summary_table(found: dict[str, Any]) -> Table:
    """Median, mean, spread and best of everything that was timed."""
    rows: list[tuple[Text, ...]] = []
    for row in found["prompts"]:
        rows.append(_row(f"prompt of {row['tokens']:,}: first token", row["ttft_s"], "s"))
        rows.append(_row(f"prompt of {row['tokens']:,}: prefill", row["tokens_per_s"], "tokens/s"))
    for row in found["decodes"]:
        rows.append(_row(f"decode, {row['depth']:,} in the cache: mean step", row["s_per_token"], "s"))
        rows.append(_row(f"decode, {row['depth']:,} in the cache: rate", row["tokens_per_s"], "tokens/s"))
    for state in ("cold", "warm"):
        loaded = found.get("load", {}).get(state)
        if loaded is not None:
            rows.append(_row(f"load, {state}", loaded["load_s"], "s"))
    head = ("", "median", "mean", "σ", "smallest", "samples")
    repetitions = {len(row["tokens_per_s"]["samples"]) for row in (*found["prompts"], *found["decodes"])}
    caption = f"Of {' or '.join(map(str, sorted(repetitions)))} repetitions"
    return Table(caption, head, tuple(rows), (1, 2, 3, 4, 5))


def _row(name: str, values: dict[str, Any], unit: str) -> tuple[Text, ...]:
    spread = "–" if values["stdev"] is None else quantity(values["stdev"], unit)
    middle = (quantity(values["median"], unit), quantity(values["mean"], unit))
    return (name, *middle, spread, quantity(values["min"], unit), f"{len(values['samples'])}")


#: What telemetry tells, in results of versions that record it.
_TELEMETRY = {
    "missing": str,
    "source": str,
    "mean_power_w": NUMBER,
    "peak_power_w": NUMBER,
    "peak_temperature_c": NUMBER,
    "mean_gpu_clock_hz": NUMBER,
}


def energy_rows(found: dict[str, Any]) -> list[tuple[str, Text]]:
    """Power, temperature, clock and tokens per joule, or why there are none; nothing for a result without that part."""
    told = found.get("telemetry")
    if misfit(told, _TELEMETRY) is not None or told is None:
        return []
    if told["missing"]:
        return [("power", Cell("not measured", note=told["missing"]))]
    named = [(f"decode, {row['depth']:,} in the cache", row) for row in found["decodes"]]
    named += [(f"prompt of {row['tokens']:,}", row) for row in found["prompts"]]
    rows: list[tuple[str, Text]] = []
    if told["mean_power_w"] is not None and told["peak_power_w"] is not None:
        text = f"{quantity(told['mean_power_w'], 'W')} on average, {quantity(told['peak_power_w'], 'W')} at most"
        rows.append(("power", Cell(text, note=told["source"])))
        rows += [
            (f"energy: {name}", f"{plain(row['tokens_per_joule'])} tokens/J")
            for name, row in named
            if misfit(row.get("tokens_per_joule"), float) is None
        ]
    if told["peak_temperature_c"] is not None:
        rows.append(("temperature of the GPU", f"{plain(told['peak_temperature_c'])} °C at most"))
    if told["mean_gpu_clock_hz"] is not None:
        rows.append(("clock of the GPU", f"{told['mean_gpu_clock_hz'] / 1e6:,.0f} MHz on average"))
    return rows


def machine(found: dict[str, Any], when: str) -> Facts:
    """Memory, and everything else that the figures depend on."""
    memory, environment = found["memory"], found["environment"]
    rows: list[tuple[str, Text]] = []
    if memory["measured"] is not None:
        loaded = f", {quantity(memory['loaded']['peak'], 'B')} once loaded" if memory["loaded"] else ""
        note = f"resident, mapped weights included; weight files {quantity(memory['weight_file_bytes'], 'B')}"
        rows.append(("peak memory", Cell(f"{quantity(memory['measured']['peak'], 'B')}{loaded}", note=note)))
    if found["read_bandwidth_bytes_per_s"] is not None:
        text = quantity(found["read_bandwidth_bytes_per_s"], "B/s")
        rows.append(("memory bandwidth", Cell(text, note=str(found.get("read_bandwidth_method", "")))))
    rows += energy_rows(found)
    noise = found["others_cpu_share"]
    if noise is not None:
        text = f"{plain(noise['mean'] * 100, 2)} % of the processors on average"
        rows.append(("work of others", text))
    threads = found["settings"]["threads"]
    work = "an unknown number of threads" if threads is None else counted(threads, "threads")
    rows.append(("machine", f"{environment['cpu'] or 'unknown processor'}, {work}, {environment['system']}"))
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items())))
    if environment["commit"]:
        rows.append(("commit of edgekit", Cell(environment["commit"], code=True)))
    if when:
        rows.append(("measured", when))
    return Facts(tuple(rows))
