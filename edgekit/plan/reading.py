"""From what a user types to a configuration: without weights where they are not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.checkpoint import open_checkpoint
from edgekit.checkpoint.cache import cache_directory
from edgekit.checkpoint.json_file import read_json_object
from edgekit.checkpoint.known_models import known_names
from edgekit.checkpoint.reference import is_repository
from edgekit.errors import CheckpointError

CONFIG = "config.json"


def model_config(ref: str, *, offline: bool = False) -> dict[str, Any]:
    """The configuration of a config.json, a Hugging Face directory (weights need not be there), a GGUF file, a known
    name, or OWNER/NAME, of which nothing but its config.json is fetched.

    Raises:
        CheckpointError: it is none of these, damaged, or not to be had.
    """
    path = Path(ref).expanduser()
    if ref not in known_names() and path.exists():
        if path.suffix == ".json":
            return read_json_object(path)
        if (path / CONFIG).is_file():
            config = read_json_object(path / CONFIG)
            # The T6 training code's own layout says "gpt2": the checkpoint's reader translates it.
            return config if config.get("model_type") != "gpt2" else open_checkpoint(path).config
    elif ref not in known_names() and is_repository(ref):
        return _of_repository(ref, offline)
    return open_checkpoint(ref, offline=offline).config


def _of_repository(ref: str, offline: bool) -> dict[str, Any]:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise CheckpointError(
            "OWNER/NAME needs the package huggingface_hub", "it is not installed", "pip install 'edgekit[export]'"
        ) from None
    try:
        found = hf_hub_download(ref, CONFIG, cache_dir=cache_directory() / "hub", local_files_only=offline)
    # The hub's client raises the errors of several HTTP libraries and of the file system.
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            "OWNER/NAME must be a repository of the hub with a config.json, reachable from here",
            f"there is no directory {ref}, and the hub could not be asked or has none: {first}",
            "check the name and the network, or give a config.json",
        ) from error
    return read_json_object(Path(found))
