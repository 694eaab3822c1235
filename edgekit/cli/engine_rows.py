"""An engine of a bundle as labels and values, for `build` and `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.cli.export_report import size
from edgekit.words import counted

if TYPE_CHECKING:
    from edgekit.bundle import EngineEntry


def engine_rows(entry: EngineEntry) -> list[tuple[str, str]]:
    """Label and value, in the order to print."""
    memory = [f"weights {size(entry.weights_bytes)}"] if entry.weights_bytes is not None else []
    memory += [f"activations {size(entry.activation_bytes)}"] if entry.activation_bytes is not None else []
    took = f"{entry.build_seconds:.1f} s"
    if entry.build_peak_memory_bytes is not None:
        took += f", {size(entry.build_peak_memory_bytes)} of memory at the peak"
    rows = [
        ("engine", f"{entry.name}, {size(entry.engine_bytes)}, a {entry.backend} {entry.backend_version} build"),
        ("  for", f"compute capability {', '.join(entry.compute_capabilities)}, CUDA {entry.cuda}, {entry.device}"),
        (
            "  serves",
            f"{entry.max_batch_size} x {entry.max_kv_cache_capacity:,} tokens, {entry.max_input_len:,} new at once",
        ),
        ("  profiles", ", ".join(profile.name for profile in entry.profiles)),
        ("  memory", ", ".join(memory) or "not told by the builder"),
    ]
    rows += [
        (
            "  plugin",
            f"{use.namespace}::{use.name} version {use.version}, {counted(use.nodes, 'layers')}, {use.library}",
        )
        for use in entry.plugins
    ]
    if entry.draft is not None:
        weights = f", weights {size(entry.draft.weights_bytes)}" if entry.draft.weights_bytes is not None else ""
        drafted = f"{size(entry.draft.engine_bytes)}{weights}, built in {entry.draft.build_seconds:.1f} s"
        rows.append(("  draft heads", drafted))
    if entry.options:
        rows.append(("  options", ", ".join(entry.options)))
    rows.append(("  built in", took))
    return rows
