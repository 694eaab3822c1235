"""Writing a bundle: into a directory beside the destination, renamed when whole.

A crash, a full disk or `kill -9` leaves the earlier bundle, or nothing that loads. Directories left behind by dead
writers are removed by the next one.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.bundle.manifest import MANIFEST_NAME, SCHEMA, Manifest
from edgekit.bundle.read import Bundle, unlisted_files
from edgekit.bundle.sidecar import Measurement, keep_measurement
from edgekit.errors import BundleError, DoesNotFit
from edgekit.files import atomic_write, sha256_of, sync_directory


@dataclass
class BundleDraft:
    """A bundle being written: put the files below `path`, and every field but schema, edgekit and files in `manifest`.

    `path` is not the final place: do not store it in any file. `sidecars` are measurements, by name, to lay beside it.
    """

    path: Path
    manifest: dict[str, Any] = field(default_factory=dict)
    sidecars: dict[str, Measurement] = field(default_factory=dict)


@contextmanager
def write_bundle(
    destination: str | Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
    known: Mapping[str, str] | None = None,
) -> Iterator[BundleDraft]:
    """Write a bundle that appears at `destination` as a whole, when the block ends without an exception.

    Args:
        overwrite: replace a bundle that is already there. Anything that is not a bundle is never replaced.
        progress: called with the number of bytes hashed since the last call, after the block.
        known: SHA-256 of files that need not be hashed, by name.

    Raises:
        BundleError: the destination is taken, or the manifest is not complete.
        DoesNotFit: the disk is full.
    """
    with whole_directory(destination, overwrite=overwrite) as folder:
        draft = BundleDraft(folder)
        yield draft
        _finish(draft, progress, known or {})


@contextmanager
def whole_directory(destination: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A directory to fill, which appears at `destination` as a whole when the block ends without an exception.

    Raises:
        BundleError: see `check_destination`.
        DoesNotFit: the disk is full.
    """
    final = Path(os.path.realpath(destination))
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _locked(final.parent):
            _clear_leftovers(final)
            check_destination(final, overwrite=overwrite)
            folder, lock = _claim_folder(final)
        try:
            yield folder
            publish(folder, final, overwrite=overwrite)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            os.close(lock)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(final.anchor if not final.parent.exists() else final.parent).free
        raise DoesNotFit(
            "a bundle must fit on the disk it is written to",
            f"{final.parent} ran full ({free / 1e6:.0f} MB are free now that the partial files are removed)",
            "free some space, or write the bundle to another disk with -o",
        ) from error


def check_destination(destination: str | Path, *, overwrite: bool) -> None:
    """Refuse a destination that holds anything that may not be replaced.

    Args:
        overwrite: whether a bundle may be replaced. Anything that is not a bundle never may.

    Raises:
        BundleError: it holds a file, other files than a bundle's, or a bundle that may not be replaced.
    """
    final = Path(os.path.realpath(destination))
    if not final.exists():
        return
    if not final.is_dir():
        raise BundleError("a bundle is written to a directory", f"{final} is a file", "choose another place with -o")
    if not any(final.iterdir()):
        return
    listed = _listed_files(final)
    if listed is None:
        raise BundleError(
            "only a bundle or an empty directory is replaced",
            f"{final} holds other files",
            "choose another place with -o, or empty the directory yourself",
        )
    if not overwrite:
        raise BundleError(
            "a bundle is replaced only when asked",
            f"{final} already holds one",
            "add --overwrite, or choose another place with -o",
        )
    foreign = unlisted_files(final, listed)
    if foreign:
        raise BundleError(
            "a bundle that is replaced holds nothing but the bundle",
            f"{final} also holds {', '.join(foreign[:3])}{' and more' if len(foreign) > 3 else ''}",
            "move that elsewhere first",
        )


def _listed_files(folder: Path) -> set[str] | None:
    """What the manifest of a bundle, of any schema, lists; None when the directory holds no manifest of ours."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_bytes())
        listed = {str(entry["name"]) for entry in manifest["files"]}
        ours = isinstance(manifest["schema"], int) and isinstance(manifest["edgekit"], str)
    except (OSError, ValueError, RecursionError, TypeError, LookupError):
        return None
    return listed if ours else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a directory: one writer at a time creates, clears and renames in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _try_lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open directory until it is closed or its process dies; False when another holds it or it cannot be."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held by another, or a file system without locks
        return False
    return True


def _claim_folder(final: Path) -> tuple[Path, int]:
    """A new directory beside the destination and a descriptor that holds its lock. Call under the parent's lock."""
    for attempt in itertools.count(1):
        folder = final.with_name(f".{final.name}.partial-{os.getpid()}" + (f"-{attempt}" if attempt > 1 else ""))
        with suppress(FileExistsError):  # another thread of this process writes the same bundle
            folder.mkdir()
            break
    lock = os.open(folder, os.O_RDONLY)
    _try_lock(lock)
    return folder, lock


def _clear_leftovers(final: Path) -> None:
    """Remove what dead writers of this bundle left. Call under the parent's lock.

    A bundle that was moved aside while its successor never arrived goes back to its place.
    """
    leftover = re.compile(re.escape(f".{final.name}.") + r"(partial|replaced)-\d+(-\d+)?")
    for path in list(final.parent.iterdir()):
        match = leftover.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_dir():
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except PermissionError:  # another user's
            continue
        try:
            if not _try_lock(descriptor):
                continue  # its writer is alive
            if match[1] == "replaced" and not final.exists():
                os.rename(path, final)
            else:
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)


def _finish(draft: BundleDraft, progress: Callable[[int], None] | None, known: Mapping[str, str]) -> None:
    """Hash the files, make them durable, and write the manifest last, then measurements that are tied to it."""
    entries = []
    for path in sorted(draft.path.rglob("*")):
        name = path.relative_to(draft.path).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise BundleError("a bundle holds regular files", f"{name} is a link or a device", "copy the file instead")
        if path.is_file():
            digest = known[name] if name in known else sha256_of(path, progress, sync=True)
            entries.append({"name": name, "bytes": path.stat().st_size, "sha256": digest})
    written_by = draft.manifest.get("edgekit", __version__)
    document = {**draft.manifest, "schema": SCHEMA, "edgekit": written_by, "files": entries}
    ordered = {key: document[key] for key in sorted(document, key=_position)}
    text = json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    manifest = Manifest.from_dict(json.loads(text))
    atomic_write(draft.path / MANIFEST_NAME, text)
    for name, found in draft.sidecars.items():
        keep_measurement(Bundle(draft.path, manifest, sha256(text.encode()).hexdigest()), name, found)


def _position(field_name: str) -> int:
    """What the bundle is comes first and the long list of files last."""
    first = ("schema", "edgekit", "kind", "model", "form", "dtype", "cache", "tokens")
    return first.index(field_name) if field_name in first else len(first) + (field_name == "files")


def publish(folder: Path, destination: str | Path, *, overwrite: bool) -> None:
    """Rename a finished bundle, a directory on the same disk, to its destination.

    An earlier bundle there is removed only afterwards. What dead writers of this bundle left is removed as well.

    Raises:
        BundleError: see `check_destination`.
    """
    final = Path(os.path.realpath(destination))
    with _locked(final.parent):
        _clear_leftovers(final)
        check_destination(final, overwrite=overwrite)  # another writer may have come first
        aside = None
        if final.exists() and any(final.iterdir()):
            aside = final.with_name(f".{final.name}.replaced-{os.getpid()}")
            os.rename(final, aside)
        try:
            os.rename(folder, final)
        except BaseException:
            if aside is not None:
                os.rename(aside, final)
            raise
        sync_directory(final.parent)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
