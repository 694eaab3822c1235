"""Where a training keeps what it has done: `.NAME.training` beside the output."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import CheckpointError


def work_folder(destination: Path, *, overwrite: bool) -> Path:
    """The folder of a destination.

    Raises:
        CheckpointError: the destination is taken, or a directory.
    """
    if destination.exists() and not overwrite:
        raise CheckpointError("the destination must be free", f"{destination} exists", "choose another, or --overwrite")
    if destination.is_dir():
        raise CheckpointError("draft heads are written to a file", f"{destination} is a directory", "name a file")
    return destination.with_name(f".{destination.name}.training")
