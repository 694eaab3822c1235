"""What builds engines: one file per backend, found by its name ("tensorrt-rtx" is tensorrt_rtx.py)."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from edgekit.build.backends.interface import Backend
from edgekit.errors import BuildError

__all__ = ["Backend", "backend_named", "backend_names"]


def backend_names() -> list[str]:
    """Names of all backends, sorted."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(path.stem.replace("_", "-") for path in files if path.stem not in ("__init__", "interface"))


def backend_named(name: str) -> Backend:
    """The backend of that name. Raises BuildError with the nearest names when there is none."""
    known = backend_names()
    if name not in known:
        near = get_close_matches(name.lower(), known)
        raise BuildError(
            "engines are built by one of " + ", ".join(known),
            f"{name!r} is none of them",
            f"did you mean {near[0]}?" if near else "leave --backend out for the device's own",
        )
    backend: Backend = import_module(f"edgekit.build.backends.{name.replace('-', '_')}").BACKEND
    return backend
