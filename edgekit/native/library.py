"""The library of native CPU operators for ONNX Runtime: compiled once, kept in the cache."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgekit.device import host
from edgekit.files import cache_dir, sync_directory
from edgekit.native.compiler import FLAGS, Compiler, NativeUnavailable, find_compiler
from edgekit.native.source_files import SOURCES, digest, sources

#: Said before compiling.
ANNOUNCEMENT = "compiling the CPU operators (once, about 20 s)"


def ort_library(announce: Callable[[str], None], root: Path = SOURCES) -> Path:
    """A library for onnxruntime.SessionOptions.register_custom_ops_library with every operator that has a cpu.cpp.

    It is kept under a name that depends on the sources, the compiler, its flags and the processor. Several processes
    may build it at once: each writes its own file and puts it in place in one step.

    Args:
        announce: told, in words, that compiling begins.

    Raises:
        NativeUnavailable: there is no compiler, it fails, or the cache cannot be written.
    """
    compiler = find_compiler()
    path = _path(compiler, root)
    if path.is_file():
        return path
    announce(ANNOUNCEMENT)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as folder:
            partial = Path(folder) / path.name
            compiler.compile(sources(root), partial)
            os.replace(partial, path)
            sync_directory(path.parent)
    except OSError as error:
        raise NativeUnavailable(
            "the native operators are kept in the cache", f"{path.parent}: {error.strerror}", "set EDGEKIT_CACHE"
        ) from error
    return path


def built_library(compiler: Compiler, root: Path = SOURCES) -> Path | None:
    """The library if it is in the cache already."""
    path = _path(compiler, root)
    return path if path.is_file() else None


def _path(compiler: Compiler, root: Path) -> Path:
    cpu = host.cpu()
    facts = (
        digest(root),
        *compiler.command,
        compiler.version,
        *FLAGS,
        cpu.architecture,
        cpu.model,
        *sorted(cpu.features),
    )
    key = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:20]
    return cache_dir() / "native" / f"libedgekit_cpu-{key}.so"
