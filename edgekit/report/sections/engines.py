"""The engines that were built from the bundle: for which GPUs, by what, and what the builds took."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.bundle import EngineEntry
from edgekit.report.blocks import Block, Cell, Figure, Section, Table, Text
from edgekit.report.numbers import count, quantity
from edgekit.report.source import Source
from edgekit.report.svg import Bar, Bars

ORDER = 65
TITLE = "Engines"
INTRO = "Built from this bundle's graph. That an engine was built says nothing yet of its answers or its speed."


def section(source: Source) -> Section | None:
    """Each engine of the manifest; nothing where there is none."""
    engines = source.bundle.manifest.engines
    if not engines:
        return None
    sizes = tuple(Bar(engine.name, engine.engine_bytes) for engine in engines)
    blocks: list[Block] = [
        Table(
            "What each is for",
            ("engine", "built by", "GPUs", "serves"),
            tuple(_purpose(engine) for engine in engines),
        ),
        Table(
            "What each takes",
            ("engine", "file", "weights", "activations", "build", "memory of the build"),
            tuple(_costs(engine) for engine in engines),
            (1, 2, 3, 4, 5),
        ),
        Figure(Bars("Size of each engine", "B", sizes), numbers=False),
        *_plugins(engines),
    ]
    return Section("engines", TITLE, tuple(blocks), INTRO, data=[engine.to_dict() for engine in engines])


def _purpose(engine: EngineEntry) -> tuple[Text, ...]:
    capabilities = ", ".join(f"SM {capability}" for capability in engine.compute_capabilities)
    serves = (
        f"{count(engine.max_batch_size, 'sequence')}, {engine.max_input_len:,} new tokens at once, "
        f"{engine.max_kv_cache_capacity:,} in all"
    )
    return (
        Cell(engine.name, code=True, note=engine.dtype),
        Cell(f"{engine.backend} {engine.backend_version}", note=", ".join(engine.options)),
        Cell(capabilities, note=f"for {engine.device}" if engine.device else ""),
        serves,
    )


def _costs(engine: EngineEntry) -> tuple[Text, ...]:
    taken = (engine.engine_bytes, engine.weights_bytes, engine.activation_bytes)
    seconds = quantity(engine.build_seconds, "s")
    return (engine.name, *map(_size, taken), seconds, _size(engine.build_peak_memory_bytes))


def _size(found: int | None) -> str:
    return "not told" if found is None else quantity(found, "B")


def _plugins(engines: Sequence[EngineEntry]) -> tuple[Table, ...]:
    rows: tuple[tuple[Text, ...], ...] = tuple(
        (
            f"{engine.name}: {plugin.name}",
            plugin.version,
            str(plugin.nodes),
            Cell(plugin.library, code=True, note=plugin.sha256),
        )
        for engine in engines
        for plugin in engine.plugins
    )
    return (Table("Plugins that they call", ("plugin", "version", "nodes", "library"), rows, (2,)),) if rows else ()
