"""Writing files so that a crash leaves the old content or the new, and hashing them; where downloads are kept."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 20


def cache_dir() -> Path:
    """Where downloads and intermediate results are kept: EDGEKIT_CACHE, or the platform's cache directory.

    It need not exist yet.
    """
    chosen = os.environ.get("EDGEKIT_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("edgekit")


def sha256_of(path: Path, progress: Callable[[int], None] | None = None, *, sync: bool = False) -> str:
    """The SHA-256 of a file as 64 hex digits, read in chunks.

    Args:
        progress: called with the number of bytes of each chunk.
        sync: also make the file's content durable on the disk before returning.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            if progress is not None:
                progress(len(chunk))
        if sync:
            os.fsync(file.fileno())
    return digest.hexdigest()


def atomic_write(path: Path, content: bytes | str | memoryview) -> None:
    """Replace `path` by `content` (text as UTF-8) in one step, durably; on failure the old file stays as it was.

    A memoryview is written without a copy of what it shows.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces `path` in one step, durably, when the block ends well; else the old one stays."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the directory's entries (creations and renames) durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_tree(
    source: Path,
    target: Path,
    *,
    copy: Callable[[Path, Path], object] = shutil.copyfile,
    leave_out: Callable[[str, list[str]], set[str]] = lambda folder, names: set(),
) -> None:
    """Copy a directory, links as what they point to. The first failure is raised as it is, a full disk among them,
    which `shutil.copytree` would hide in a list of all.

    Args:
        leave_out: as `shutil.ignore_patterns` makes it.
    """
    target.mkdir(parents=True)
    names = sorted(path.name for path in source.iterdir())
    skipped = leave_out(str(source), names)
    for name in names:
        if name in skipped:
            continue
        if (source / name).is_dir():
            copy_tree(source / name, target / name, copy=copy, leave_out=leave_out)
        else:
            copy(source / name, target / name)
