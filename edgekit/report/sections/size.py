"""What the bundle's bytes are: weights by role, and files."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict

from edgekit.report.blocks import Block, Figure, Note, Section, Table, Text, Tile
from edgekit.report.graph import GraphFacts
from edgekit.report.numbers import count, percent, quantity
from edgekit.report.source import Source
from edgekit.report.svg import Stack

ORDER = 30
TITLE = "Size"
SCALES = "scales and zero points"
PADDING = "alignment"
#: In the order of the bar; roles that are missing here come after them.
ROLES = (
    "embedding",
    "embedding and output head",
    "output head",
    "attention",
    "MLP",
    SCALES,
    "position tables",
    "norms",
    PADDING,
)
_NO_ONNX = "The breakdown by role needs the package onnx: pip install 'edgekit[export]'."


def section(source: Source) -> Section:
    """Weights by role, files, and the checkpoint beside the bundle."""
    manifest, graph = source.bundle.manifest, source.graph
    before = checkpoint_bytes(source)
    blocks: list[Block] = []
    parts: dict[str, int] = {}
    if graph is None:
        blocks.append(Note(_NO_ONNX))
    else:
        parts = bytes_by_role(graph, data_bytes(source))
        shown = tuple((role, float(size)) for role, size in parts.items() if size)
        caption = f"Weights by what the model uses them for. {_shared_note(graph)}".rstrip()
        if shown:
            blocks += [Figure(Stack("Weights by role", "B", shown), caption, numbers=False), _role_table(graph, parts)]
    blocks.append(_file_table(source))
    tile = Tile("Size", quantity(manifest.bytes, "B"), f"checkpoint {quantity(before, 'B')}" if before else "")
    data = {
        "bytes": manifest.bytes,
        "checkpoint_bytes": before,
        "weights_by_role": parts,
        "files": [asdict(entry) for entry in manifest.files],
    }
    intro = f"{quantity(manifest.bytes, 'B')} in {count(len(manifest.files), 'file')}"
    intro += f", made from a checkpoint of {quantity(before, 'B')}." if before else "."
    return Section("size", TITLE, tuple(blocks), intro, tiles=(tile,), data=data)


def checkpoint_bytes(source: Source) -> int | None:
    """Size of the files that the bundle was made from; None where the manifest does not say."""
    provenance = source.bundle.manifest.raw.get("provenance")
    checkpoint = provenance.get("checkpoint") if isinstance(provenance, dict) else None
    files = checkpoint.get("files") if isinstance(checkpoint, dict) else None
    if not isinstance(files, list):
        return None
    sizes = [file.get("bytes") for file in files if isinstance(file, dict)]
    return sum(size for size in sizes if isinstance(size, int)) or None


def data_bytes(source: Source) -> int:
    """Bytes of the graph's external data."""
    data = set(source.bundle.manifest.graph.data)
    return sum(entry.bytes for entry in source.bundle.manifest.files if entry.name in data)


def bytes_by_role(graph: GraphFacts, external: int) -> dict[str, int]:
    """Bytes of each role; scales are a role of their own, and so is what aligns tensors in the data files.

    Args:
        external: bytes of the data files.
    """
    sums: dict[str, int] = defaultdict(int)
    for constant in graph.constants:
        sums[SCALES if constant.scales else constant.role] += constant.bytes
    if external > graph.external_bytes:
        sums[PADDING] = external - graph.external_bytes
    ranks = {role: rank for rank, role in enumerate(ROLES)}
    return dict(sorted(sums.items(), key=lambda entry: ranks.get(entry[0], len(ranks))))


def _shared_note(graph: GraphFacts) -> str:
    if any(" and " in constant.role for constant in graph.constants):
        return "Embedding and output head are the same bytes, stored once."
    return ""


def _role_table(graph: GraphFacts, parts: dict[str, int]) -> Table:
    whole = sum(parts.values())
    tensors: dict[str, int] = defaultdict(int)
    for constant in graph.constants:
        tensors[SCALES if constant.scales else constant.role] += 1
    rows: tuple[tuple[Text, ...], ...] = tuple(
        (role, f"{tensors[role]:,}" if role in tensors else "–", f"{size:,}", percent(size / whole))
        for role, size in parts.items()
    )
    rows += (("all", f"{len(graph.constants):,}", f"{whole:,}", percent(1.0)),)
    return Table("Constants of the graph", ("role", "tensors", "bytes", "share"), rows, (1, 2, 3))


def _file_table(source: Source) -> Table:
    files = sorted(source.bundle.manifest.files, key=lambda entry: -entry.bytes)
    rows = tuple((entry.name, f"{entry.bytes:,}") for entry in files)
    return Table(f"Files ({len(files)})", ("file", "bytes"), rows, (1,), folded=True)
