"""Adding files to a bundle that is there: the bundle changes from the old to the new in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.bundle.read import Bundle, read_manifest
from edgekit.bundle.sidecar import SIDECARS, find_measurement
from edgekit.bundle.write import BundleDraft, write_bundle
from edgekit.errors import BundleError


@contextmanager
def extend_bundle(
    bundle: Bundle, *, without: Collection[str] = (), progress: Callable[[int], None] | None = None
) -> Iterator[BundleDraft]:
    """A copy of a bundle to add to, which takes its place when the block ends without an exception.

    Files that it has already are not copied but linked, where the file system can, so they must not be written to. The
    draft's manifest is the bundle's, to be changed. Measurements beside the bundle (parity, eval, bench) are kept: they
    are of its graph, which stays.

    Args:
        without: directories of the bundle that are left out.
        progress: called with the number of bytes hashed since the last call, after the block.

    Raises:
        BundleError: the bundle has changed meanwhile, or its directory cannot be written to.
        DoesNotFit: the disk is full.
    """
    _check_writable(bundle.path)
    found = {name: find_measurement(bundle, name) for name in SIDECARS}
    measured = {name: entry for name, entry in found.items() if entry is not None and entry.current}
    left_out = tuple(f"{directory}/" for directory in without)
    kept = [entry for entry in bundle.manifest.files if not entry.name.startswith(left_out)]
    known = {entry.name: entry.sha256 for entry in kept}
    with write_bundle(bundle.path, overwrite=True, progress=progress, known=known) as draft:
        for entry in kept:
            _link(bundle.path / entry.name, draft.path / entry.name)
        draft.manifest.update(bundle.manifest.raw)
        yield draft
        if read_manifest(bundle.path).manifest_sha256 != bundle.manifest_sha256:
            raise BundleError(
                "a bundle is added to as it was when the work began",
                f"{bundle.path} has been changed meanwhile",
                "run the command again",
            )
        draft.sidecars.update(measured)


def _check_writable(path: Path) -> None:
    """Refuse at once what would fail at the end: the directory is renamed, so its parent must be writable too."""
    folder = path.resolve()
    for place in (folder, folder.parent):
        if not os.access(place, os.W_OK):
            raise BundleError(
                "what is added to a bundle is written to its directory and beside it",
                f"{place} is read-only",
                "copy the bundle to a disk that can be written to, and add to the copy",
            )


def _link(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, destination)
    except OSError:  # a file system without hard links
        shutil.copy2(source, destination)


def engine_record(raw: dict[str, Any], entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifest's list of engines with this one as the last, and no other of its name."""
    return [*(engine for engine in raw.get("engines", []) if engine["name"] != entry["name"]), entry]
