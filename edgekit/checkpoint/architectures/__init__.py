"""GGUF architectures: one file each, found by the name in `general.architecture`.

Each module has a constant `ARCHITECTURE`, a `GgufArchitecture`.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from edgekit.checkpoint.architectures.table import GgufArchitecture
from edgekit.errors import CheckpointError

_NOT_ARCHITECTURES = {"__init__", "table", "rope"}


def known_architectures() -> list[str]:
    """Names that `gguf_architecture` accepts."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in _NOT_ARCHITECTURES)


def gguf_architecture(name: str) -> GgufArchitecture:
    """The architecture of that name. Raises CheckpointError listing the known ones."""
    if not re.fullmatch(r"[a-z0-9_]+", name) or name not in known_architectures():
        raise CheckpointError(
            "a GGUF file's architecture must be one that edgekit knows",
            f"this one is {name!r}; known are {', '.join(known_architectures())}",
            "take a model of a known architecture, or add a file to edgekit/checkpoint/architectures/",
        )
    architecture = importlib.import_module(f"{__name__}.{name}").ARCHITECTURE
    assert isinstance(architecture, GgufArchitecture)
    return architecture
