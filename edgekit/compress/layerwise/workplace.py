"""Where a compression keeps what it has done: `.NAME.compress` beside the output."""

from __future__ import annotations

from pathlib import Path


def work_folder(destination: Path) -> Path:
    """The folder of a destination."""
    return destination.with_name(f".{destination.name}.compress")
