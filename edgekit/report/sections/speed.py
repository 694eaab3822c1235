"""How fast the bundle ran where it was measured, with every sample."""

from __future__ import annotations

from typing import Any

from edgekit.report.blocks import Block, Note, Section, State, Tile
from edgekit.report.numbers import percent, quantity
from edgekit.report.source import Source
from edgekit.report.speed import SHAPE, figures, machine, summary_table

ORDER = 40
TITLE = "Speed"
#: From this share of the processors on, work of others is worth a warning.
NOISY = 0.1


def section(source: Source) -> Section:
    """Distributions of decode steps and prompts, the summary, loading, memory, and the machine."""
    found = source.document("bench", SHAPE)
    if found is None:
        note = source.missing("Speed", "bench")
        tile = Tile("Decode", "not measured", "edgekit bench", "quiet")
        return Section("speed", TITLE, (note,), state="missing", tiles=(tile,))
    current = source.state("bench") == "ok"
    blocks: list[Block] = [*source.stale("bench"), *_warnings(found, source)]
    blocks += [*figures(found), summary_table(found), machine(found, source.when("bench"))]
    intro = f"{found['session']} on {found['environment']['cpu'] or 'an unknown processor'}."
    state: State = "ok" if current else "stale"
    return Section("speed", TITLE, tuple(blocks), intro, state, _tiles(found, current), source.data("bench"))


def _tiles(found: dict[str, Any], current: bool) -> tuple[Tile, ...]:
    tiles = []
    for row in found["decodes"][:1]:
        rate, note = row["tokens_per_s"], f"median, {row['depth']:,} tokens in the cache"
        tiles.append(("Decode", quantity(rate["median"], "tokens/s"), note))
    for row in found["prompts"][:1]:
        tiles.append(("First token", quantity(row["ttft_s"]["median"], "s"), f"median, prompt of {row['tokens']:,}"))
    noise = found["others_cpu_share"]
    if noise is not None and noise["mean"] >= NOISY:
        tiles = [(label, value, f"{note}; the machine was busy") for label, value, note in tiles]
    if current:
        return tuple(Tile(*tile) for tile in tiles)
    return tuple(Tile(label, "stale", f"{value}, with another state", "warn") for label, value, _ in tiles)


def _warnings(found: dict[str, Any], source: Source) -> list[Block]:
    notes: list[Block] = []
    if found["parity"] is not True:
        text = "Its answers were not proven when this was measured: it had not passed edgekit parity. To prove them:"
        notes.append(Note(text, "warn", source.command("parity")))
    noise = found["others_cpu_share"]
    if noise is not None and noise["mean"] >= NOISY:
        text = (
            f"Other processes took {percent(noise['mean'], 2)} of the processors while this was measured "
            f"({percent(max(noise['samples']), 2)} at the worst), so these figures are lower than the machine's best. "
            "On an idle machine, measure again:"
        )
        notes.append(Note(text, "warn", source.command("bench")))
    return notes
