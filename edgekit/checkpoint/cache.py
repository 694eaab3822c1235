"""The directory that pulled checkpoints are kept in."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edgekit.errors import DoesNotFit

_TEMPORARY = ".pull-"
_STALE_SECONDS = 24 * 3600


def cache_directory() -> Path:
    """Where pulled checkpoints are kept: EDGEKIT_CACHE, or the platform's cache directory. It need not exist."""
    if chosen := os.environ.get("EDGEKIT_CACHE"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("edgekit")


@contextlib.contextmanager
def temporary_directory(needed_bytes: int) -> Iterator[Path]:
    """A directory on the cache's file system, so that a rename into the cache is atomic. Removed at the end.

    Raises DoesNotFit where fewer than `needed_bytes` are free.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    _remove_stale(cache)
    free = shutil.disk_usage(cache).free
    if free < needed_bytes:
        raise DoesNotFit(
            "the cache's disk must have room for the checkpoint",
            f"{cache}: {needed_bytes / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free",
            "free some space, or set EDGEKIT_CACHE to a directory on a larger disk",
        )
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=cache) as name:
        yield Path(name)


def _remove_stale(directory: Path) -> None:
    """Removes what a killed pull left behind. A running pull is younger than this."""
    for path in directory.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
