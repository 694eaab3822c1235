"""Repositories of the Hugging Face hub, where there is a network."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

from edgekit.checkpoint.cache import cache_directory
from edgekit.errors import CheckpointError
from edgekit.files import atomic_write

#: What is fetched: weights, configuration and tokenizer of the top folder, and an encoder's 1_Pooling/config.json,
#: which says how it pools. Nothing that could be run.
ALLOW = ["*.safetensors", "*.json", "*.jinja", "tokenizer*"]
IGNORE = ["[!1]*/*", "1[!_]*/*", "*.py", "*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.msgpack", "*.h5"]


def _note(ref: str) -> Path:
    """Where the directory of a repository that was fetched in full is written down."""
    return cache_directory() / "hub" / (ref.replace("/", "--") + ".json")


def _fetched(ref: str) -> Path | None:
    try:
        path = Path(json.loads(_note(ref).read_text("utf-8"))["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if (path / "config.json").exists() else None


def pull_repository(ref: str, *, offline: bool, say: Callable[[str], None]) -> Path:
    """The directory of OWNER/NAME in the cache, fetched at the first use. Raises CheckpointError without a network."""
    if path := _fetched(ref):
        return path
    if offline:
        raise CheckpointError(
            "without a network a checkpoint of the hub must be in the cache",
            f"{ref} is not in {cache_directory()}",
            f"run `edgekit pull {ref}` with a network first, or give a local directory",
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            "OWNER/NAME needs the package huggingface_hub", "it is not installed", "pip install 'edgekit[export]'"
        ) from None
    say(f"pulling {ref} from the Hugging Face hub")
    try:
        found = snapshot_download(
            ref, cache_dir=cache_directory() / "hub", allow_patterns=ALLOW, ignore_patterns=IGNORE
        )
    # The hub's client raises the errors of several HTTP libraries and of the file system.
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            "OWNER/NAME must be a repository of the hub, reachable from here",
            f"there is no directory {ref}, and the hub could not be asked or has none: {first}",
            "check the name, the network and `hf auth whoami`, or download it elsewhere and give the directory",
        ) from error
    atomic_write(_note(ref), json.dumps({"path": str(found)}) + "\n")
    say(f"pulled {ref}: {found}")
    return Path(found)
