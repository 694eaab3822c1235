"""What kind of checkpoint a user's words mean: a path, a known name, or OWNER/NAME."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from edgekit.checkpoint.known_models import known_names
from edgekit.errors import CheckpointError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_repository(ref: str) -> bool:
    """Whether it has the form OWNER/NAME of the model hub."""
    return _REPOSITORY.fullmatch(ref) is not None and not ref.endswith((".gguf", ".safetensors"))


def local_path(ref: str | Path) -> Path | None:
    """The existing file or directory, or None for a known name or OWNER/NAME. Raises CheckpointError for neither."""
    text = str(ref)
    if isinstance(ref, str) and text in known_names():
        return None
    path = Path(ref).expanduser()
    if path.exists():
        if path.is_dir() or path.suffix != ".safetensors":
            return path
        raise CheckpointError(
            "safetensors need the config.json beside them",
            f"{path} is a weight file alone",
            f"give its directory: {path.parent}",
        )
    if isinstance(ref, str) and is_repository(text):
        return None
    near = difflib.get_close_matches(text, known_names(), n=3, cutoff=0.5)
    raise CheckpointError(
        "a checkpoint is a .gguf file, a Hugging Face directory, a known name, or OWNER/NAME",
        f"there is no file or directory {text!r}, and it is no known name",
        f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(known_names())}",
    )
