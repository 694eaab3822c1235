"""Where a training keeps what it has done: `.NAME.training` beside the output."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import CheckpointError

#: What a file of heads ends in; its history and its curves are named after what stands before that.
SUFFIX = ".safetensors"


def check_name(destination: Path) -> None:
    """Raises CheckpointError for the name of another kind of file."""
    if destination.suffix != SUFFIX:
        raise CheckpointError(
            f"draft heads are a file whose name ends in {SUFFIX}",
            f"{destination} does not",
            f"name it {destination.stem or 'heads'}{SUFFIX}",
        )


def work_folder(destination: Path, *, overwrite: bool) -> Path:
    """The folder of a destination.

    Raises:
        CheckpointError: the destination is taken, a directory, or named as another kind of file.
    """
    check_name(destination)
    if destination.exists() and not overwrite:
        raise CheckpointError("the destination must be free", f"{destination} exists", "choose another, or --overwrite")
    if destination.is_dir():
        raise CheckpointError("draft heads are written to a file", f"{destination} is a directory", "name a file")
    return destination.with_name(f".{destination.name}.training")
