"""What `edgekit export` and `edgekit make` say before and after the work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from edgekit.words import counted

#: Units kept at 8 bits that are named; the manifest has all.
_MOST_NAMES = 5


class Estimated(Protocol):
    """What an export will take: bytes on the disk, bytes of memory at the peak, seconds on this machine."""

    @property
    def bytes_on_disk(self) -> int: ...
    @property
    def peak_memory_bytes(self) -> int: ...
    @property
    def seconds(self) -> float: ...


def estimate_line(estimate: Estimated, destination: Path) -> str:
    """One line before the work starts, with what this machine has."""
    from edgekit.device.host import disk_free_bytes, memory

    available = memory()
    of_memory = f" of {size(available.available_bytes)} available" if available is not None else ""
    return (
        f"estimate: {size(estimate.bytes_on_disk)} on disk "
        f"({size(disk_free_bytes(destination.absolute()))} free), "
        f"{size(estimate.peak_memory_bytes)} of memory{of_memory}, about {_seconds(estimate.seconds)}"
    )


def estimate_facts(estimate: Estimated) -> dict[str, Any]:
    """The same for --json."""
    return {
        "bytes_on_disk": estimate.bytes_on_disk,
        "peak_memory_bytes": estimate.peak_memory_bytes,
        "seconds": round(estimate.seconds, 1),
    }


def require_space(needed_bytes: int, destination: Path) -> None:
    """Raise DoesNotFit when the disk that will hold `destination` has less than this free."""
    from edgekit.device.host import disk_free_bytes
    from edgekit.errors import DoesNotFit

    free = disk_free_bytes(destination.absolute())
    if free < needed_bytes:
        raise DoesNotFit(
            "a bundle must fit on the disk it is written to",
            f"{destination} needs about {size(needed_bytes)}, {size(free)} are free",
            "free some space, choose a smaller --dtype, or write to another disk with -o",
        )


def summary_lines(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What was made, from its manifest: rules, where the weights came from, files, limits."""
    draft = manifest.get("draft")
    rows = _rule_rows("rule", manifest.get("rules") or {})
    rows += _quantization_rows(manifest.get("quantization"))
    rows += _draft_rows(draft) if draft is not None else []
    rows += [(f"file {file['name']}", size(file["bytes"])) for file in manifest["files"]]
    model, cache = manifest["model"], manifest["cache"]
    rows.append(("all files", size(sum(file["bytes"] for file in manifest["files"]))))
    if (encoder := manifest.get("encoder")) is not None:
        rows.append(("embeddings", encoder_words(encoder)))
    else:
        rows.append(
            ("context", f"up to {cache['capacity_limit']:,} tokens, {cache['bytes_per_token']:,} bytes of cache each")
        )
    width = max(len(label) for label, _ in rows)
    lines = [f"{label:<{width}}  {text}" for label, text in rows]
    return [*lines, f"{path}: {model['name']}, {manifest['dtype']}, {manifest['form']} form"]


def encoder_words(encoder: Mapping[str, Any]) -> str:
    """An encoder's part of the manifest in words."""
    length = ", of length 1" if encoder["normalize"] else ""
    made = f"{encoder['dimensions']} numbers, {encoder['pooling']} pooling{length}"
    return f"{made}; texts of up to {encoder['max_tokens']} tokens"


def _rule_rows(label: str, rules: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How often each rule fired, and why it refused."""
    rows = []
    for name, outcome in rules.items():
        reasons = sorted({refusal["reason"] for refusal in outcome["refused"]})
        refused = f", refused {len(outcome['refused'])}: {'; '.join(reasons)}" if reasons else ""
        rows.append((f"{label} {name}", f"fired {outcome['fired']}{refused}"))
    return rows


def _draft_rows(draft: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The draft graph's rules, and what it drafts."""
    drafts = f"{draft['tokens']} tokens out of {draft['vocabulary_size']:,}"
    components = f"{draft['components']} of {counted(draft['rank'], 'components')}"
    return [*_rule_rows("draft rule", draft["rules"]), ("draft heads", f"{drafts}, {components}")]


def _quantization_rows(record: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """How the matrices came to their integers; nothing for an unquantised bundle."""
    if record is None:
        return [("weights", "not quantised")]
    rows = [("weights", f"{counted(count, 'matrices')} {origin}") for origin, count in sorted(record["origin"].items())]
    kept = record["units_at_8_bits"]
    if record["bits"] < 8:
        named = ": " + ", ".join(kept[:_MOST_NAMES]) + (", ..." if len(kept) > _MOST_NAMES else "") if kept else ""
        rows.append(("kept at 8 bits", f"{counted(len(kept), 'units')}{named}"))
    return rows


def size(count: int) -> str:
    """Bytes as "3.4 kB", "98.4 MB" or "2.7 GB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count} bytes"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
