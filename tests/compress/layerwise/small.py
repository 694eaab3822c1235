"""Compressing tiny models quickly: few tokens, and jobs in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgekit.checkpoint import open_checkpoint
from edgekit.compress.layerwise.compress import compress
from edgekit.compress.layerwise.options import CompressOptions
from edgekit.progress import SilentProgress

SMALL: dict[str, Any] = {"sequences": 4, "length": 32, "rounds": 1, "allocate": False, "bits_per_weight": 5.0}


def options(**changes: Any) -> CompressOptions:
    """Of a quick compression."""
    given = SMALL | changes
    if {"ratio", "target_bytes", "target_ms"} & changes.keys():
        given["bits_per_weight"] = None
    return CompressOptions(**given)


def here(function: Callable[[Any], Any], jobs: Sequence[Any], done: Callable[[Any], None], stopped: Any) -> bool:
    """An executor that does one job after the other in this process."""
    for job in jobs:
        if stopped():
            return False
        done(function(job))
    return True


def compressed(source: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Compress; the record."""
    extra = {key: changes.pop(key) for key in ("plan", "plan_only", "overwrite", "resume", "text") if key in changes}
    record = compress(
        open_checkpoint(source), out, options(**changes), progress=SilentProgress(), execute=here, **extra
    )
    assert record is not None
    return record
