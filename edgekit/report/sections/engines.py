"""The engines that were built from the bundle: for which GPUs, by what, and what the builds took."""

from __future__ import annotations

from typing import Any

from edgekit.report.blocks import Block, Cell, Figure, Section, Table, Text
from edgekit.report.numbers import count, quantity
from edgekit.report.shape import require_shape
from edgekit.report.source import Source
from edgekit.report.svg import Bar, Bars

ORDER = 65
TITLE = "Engines"
SHAPE = [
    {
        "name": str,
        "backend": str,
        "backend_version": str,
        "compute_capabilities": [str],
        "device": str,
        "dtype": str,
        "max_batch_size": int,
        "max_input_len": int,
        "max_kv_cache_capacity": int,
        "plugins": [{"name": str, "version": str, "nodes": int, "library": str, "sha256": str}],
        "options": [str],
        "engine_bytes": int,
        "weights_bytes": (int, None),
        "activation_bytes": (int, None),
        "build_seconds": float,
        "build_peak_memory_bytes": (int, None),
    }
]
INTRO = "Built from this bundle's graph. That an engine was built says nothing yet of its answers or its speed."


def section(source: Source) -> Section | None:
    """Each engine of the manifest; nothing where there is none."""
    engines = source.bundle.manifest.raw.get("engines")
    if not engines:
        return None
    where, again = f"the engines of {source.bundle.path}", f"build again: {source.command('build', '--device DEVICE')}"
    require_shape(engines, SHAPE, where, again)
    sizes = tuple(Bar(engine["name"], engine["engine_bytes"]) for engine in engines)
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
    title = f"{TITLE} ({len(engines)})"
    return Section("engines", title, tuple(blocks), INTRO, data=engines)


def _purpose(engine: dict[str, Any]) -> tuple[Text, ...]:
    capabilities = ", ".join(f"SM {capability}" for capability in engine["compute_capabilities"])
    options = ", ".join(engine["options"])
    serves = (
        f"{count(engine['max_batch_size'], 'sequence')}, {engine['max_input_len']:,} new tokens at once, "
        f"{engine['max_kv_cache_capacity']:,} in all"
    )
    backend = f"{engine['backend']} {engine['backend_version']}"
    gpus = Cell(capabilities, note=f"for {engine['device']}" if engine["device"] else "")
    return Cell(engine["name"], code=True, note=engine["dtype"]), Cell(backend, note=options), gpus, serves


def _costs(engine: dict[str, Any]) -> tuple[Text, ...]:
    def size(name: str) -> str:
        return "not told" if engine[name] is None else quantity(engine[name], "B")

    taken = (size(name) for name in ("engine_bytes", "weights_bytes", "activation_bytes"))
    return (engine["name"], *taken, quantity(engine["build_seconds"], "s"), size("build_peak_memory_bytes"))


def _plugins(engines: list[dict[str, Any]]) -> tuple[Table, ...]:
    rows: tuple[tuple[Text, ...], ...] = tuple(
        (
            f"{engine['name']}: {plugin['name']}",
            plugin["version"],
            str(plugin["nodes"]),
            Cell(plugin["library"], code=True, note=plugin["sha256"]),
        )
        for engine in engines
        for plugin in engine["plugins"]
    )
    return (Table("Plugins that they call", ("plugin", "version", "nodes", "library"), rows, (2,)),) if rows else ()
