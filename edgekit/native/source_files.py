"""The C++ sources of the CPU library, found beside this package or in the repository."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from edgekit.native.compiler import NativeUnavailable

#: In the repository a link to plugins/, in an installed package a copy.
SOURCES = Path(__file__).parent / "sources"
_INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def sources(root: Path = SOURCES) -> list[Path]:
    """What is compiled: the entry point and every operator's cpu.cpp.

    Raises:
        NativeUnavailable: the sources are not there.
    """
    found = [root / "cpu_library.cpp", *sorted(root.glob("*/cpu.cpp"))]
    if len(found) < 2 or not found[0].is_file():
        raise NativeUnavailable(
            "the package must contain the sources of the native operators",
            f"{root} has no cpu_library.cpp with operators",
            "install edgekit again",
        )
    return found


def compiled_files(root: Path = SOURCES) -> dict[str, bytes]:
    """The sources and all files that they include by "name", directly or not: content by path below `root`."""
    seen: dict[Path, bytes] = {}
    waiting = sources(root)
    while waiting:
        path = waiting.pop().resolve()
        if path in seen:
            continue
        seen[path] = path.read_bytes()
        included = [path.parent / name.decode() for name in _INCLUDE.findall(seen[path])]
        waiting += [header for header in included if header.is_file()]
    top = root.resolve()
    return {path.relative_to(top).as_posix(): content for path, content in sorted(seen.items())}


def digest(root: Path = SOURCES) -> str:
    """SHA-256 over the names and contents of what is compiled."""
    total = hashlib.sha256()
    for name, content in compiled_files(root).items():
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()
