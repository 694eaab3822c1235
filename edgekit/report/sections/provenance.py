"""Where the bundle comes from: checkpoint, tools, recipe, rules, quantisation, hashes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.report.blocks import Block, Cell, Facts, Section, Table, Text
from edgekit.report.numbers import count, plain, quantity
from edgekit.report.source import Source

ORDER = 90
TITLE = "Provenance"
INTRO = "What it was made from and by what, as the manifest recorded it when the bundle was written."


def section(source: Source) -> Section:
    """Facts, rules with how often they fired, and the hash of every file."""
    raw = source.bundle.manifest.raw
    checkpoint = _mapping(_mapping(raw.get("provenance")).get("checkpoint"))
    blocks: list[Block] = [
        Facts((*_checkpoint_rows(checkpoint), *_maker_rows(source))),
        *_rules(_mapping(raw.get("rules"))),
        *_quantization(_mapping(raw.get("quantization"))),
        _files(source),
    ]
    names = ("provenance", "versions", "rules", "quantization", "recipe")
    data = {"manifest_sha256": source.bundle.manifest_sha256, **{name: raw.get(name) for name in names}}
    return Section("provenance", TITLE, tuple(blocks), INTRO, data=data)


def _checkpoint_rows(checkpoint: Mapping[str, Any]) -> list[tuple[str, Text]]:
    if not checkpoint:
        return [("checkpoint", "the manifest does not say")]
    rows: list[tuple[str, Text]] = [
        ("checkpoint", Cell(str(checkpoint.get("path")), code=True)),
        ("its place then", Cell(str(checkpoint.get("location")), code=True)),
        ("format", str(checkpoint.get("format"))),
    ]
    for file in checkpoint.get("files") or []:
        if isinstance(file, dict):
            size = file.get("bytes")
            shown = f"{size:,} bytes" if isinstance(size, int) else ""
            rows.append((f"SHA-256 of {file.get('name')}", Cell(str(file.get("sha256")), code=True, note=shown)))
    return rows


def _maker_rows(source: Source) -> list[tuple[str, Text]]:
    manifest, raw = source.bundle.manifest, source.bundle.manifest.raw
    versions = ", ".join(f"{name} {version}" for name, version in _mapping(raw.get("versions")).items())
    recipe = _mapping(raw.get("recipe"))
    return [
        ("written by", f"edgekit {manifest.edgekit}" + (f", {versions}" if versions else "")),
        ("recipe", str(recipe.get("file")) if recipe else "none: edgekit export"),
        ("graph", f"opset {_mapping(raw.get('graph')).get('opset', 'unknown')}, {manifest.form} form"),
        ("manifest", Cell(source.bundle.manifest_sha256, code=True, note="SHA-256 of manifest.json")),
    ]


def _rules(rules: Mapping[str, Any]) -> tuple[Block, ...]:
    rows: list[tuple[Text, ...]] = []
    idle = []
    for name, outcome in rules.items():
        fired, refused = _mapping(outcome).get("fired", 0), _mapping(outcome).get("refused") or []
        if not fired and not refused:
            idle.append(str(name))
            continue
        reasons = [f"{_mapping(entry).get('node')}: {_mapping(entry).get('reason')}" for entry in refused]
        more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
        rows.append((Cell(str(name), code=True), str(fired), str(len(refused)), "; ".join(reasons[:3]) + more))
    if not rows:
        return ()
    head = ("rewrite rule", "fired", "refused", "why it refused")
    caption = "Rewrite rules" + (f"; nothing to do for {', '.join(idle)}" if idle else "")
    return (Table(caption, head, tuple(rows), (1, 2)),)


def _quantization(record: Mapping[str, Any]) -> tuple[Block, ...]:
    if not record:
        return ()
    rows: list[tuple[str, Text]] = []
    for name, value in record.items():
        label = f"quantisation {str(name).replace('_', ' ')}"
        if isinstance(value, dict):
            shown = ", ".join(f"{key}: {_plain(entry)}" for key, entry in list(value.items())[:12])
            more = f" and {len(value) - 12} more" if len(value) > 12 else ""
            rows.append((label, (shown or "none") + more))
        elif name == "weight_bytes" and isinstance(value, int):
            rows.append((label, f"{value:,} ({quantity(value, 'B')})"))
        else:
            rows.append((label, _plain(value)))
    return (Facts(tuple(rows)),)


def _plain(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return plain(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _files(source: Source) -> Table:
    files = source.bundle.manifest.files
    rows: tuple[tuple[Text, ...], ...] = tuple(
        (entry.name, f"{entry.bytes:,}", Cell(entry.sha256, code=True)) for entry in files
    )
    caption = f"SHA-256 of {count(len(files), 'file')}"
    return Table(caption, ("file", "bytes", "SHA-256"), rows, (1,), folded=True)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
