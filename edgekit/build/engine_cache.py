"""Engines that were built before, by everything that decides what they are; and TensorRT's own timing caches.

Both lie below the cache directory: `engines/<key>/` and `timing/<device>-<backend>-<version>.cache`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.build.profile import AxisRange
from edgekit.bundle import Bundle
from edgekit.errors import BuildError
from edgekit.files import atomic_write, cache_dir, sha256_of

#: Raised when the same inputs come to mean another engine.
KEY_VERSION = 1
ENGINE_FILE = "model.engine"
_RECORD = "build.json"


def graph_digest(bundle: Bundle, file: str, data: Collection[str]) -> str:
    """SHA-256, 64 hex digits, of the names and hashes of one of a bundle's ONNX files and its data files."""
    digests = {entry.name: entry.sha256 for entry in bundle.manifest.files}
    names = [file, *sorted(data)]
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in names).encode()).hexdigest()


def cache_key(
    *,
    graph_sha256: str,
    backend: str,
    backend_version: str,
    compute_capabilities: Collection[str],
    profiles: Mapping[str, Mapping[str, AxisRange]],
    options: Collection[str],
    plugin_sha256: str,
) -> str:
    """SHA-256, 64 hex digits, of everything that decides what an engine is."""
    document = {
        "key_version": KEY_VERSION,
        "graph": graph_sha256,
        "backend": [backend, backend_version],
        "compute_capabilities": sorted(compute_capabilities),
        "profiles": [
            [name, {axis: asdict(sizes) for axis, sizes in sorted(axes.items())}] for name, axes in profiles.items()
        ],
        "options": sorted(options),
        "plugins": plugin_sha256,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


class EngineCache:
    """Engines below a directory. All methods raise BuildError where the directory cannot be written to."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder if folder is not None else cache_dir()

    def check(self) -> None:
        """Refuse a directory that cannot be written to, before anything is built."""
        probe = self._folder / f".writable-{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
        except OSError as error:
            raise BuildError(
                "built engines and measured times are kept in the cache, which must be writable",
                f"{self._folder} is not: {error.strerror}",
                "set EDGEKIT_CACHE to a directory that is, or add --no-cache",
            ) from error
        finally:
            with suppress(OSError):
                probe.unlink()

    def find(self, key: str) -> tuple[Path, dict[str, Any]] | None:
        """The engine of this key and the facts of its build; None when there is none, or it is damaged."""
        folder = self._folder / "engines" / key
        engine = folder / ENGINE_FILE
        try:
            record: dict[str, Any] = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
            if engine.stat().st_size != record["bytes"] or sha256_of(engine) != record["sha256"]:
                return None
        except (OSError, ValueError, LookupError):
            return None
        return engine, record["build"]

    def store(self, key: str, engine: Path, build: Mapping[str, Any]) -> None:
        """Keep an engine, linked where the file system can, with the facts of its build."""
        folder = self._folder / "engines" / key
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{ENGINE_FILE}.partial-{os.getpid()}"
        partial.unlink(missing_ok=True)
        link_or_copy(engine, partial)
        os.replace(partial, folder / ENGINE_FILE)
        record = {"bytes": engine.stat().st_size, "sha256": sha256_of(engine), "build": dict(build)}
        atomic_write(folder / _RECORD, json.dumps(record, indent=2) + "\n")

    def seconds_before(self, graph_sha256: str, profiles: int) -> float | None:
        """How long the last build of the same graph with as many profiles took; None when there was none."""
        found = []
        for file in (self._folder / "engines").glob(f"*/{_RECORD}"):
            with suppress(OSError, ValueError, LookupError):
                build = json.loads(file.read_text(encoding="utf-8"))["build"]
                if build["graph_sha256"] == graph_sha256 and len(build["profiles"]) == profiles:
                    found.append((file.stat().st_mtime, float(build["seconds"])))
        return max(found)[1] if found else None

    def timing_cache(self, device: str, backend: str, version: str) -> Path:
        """Where measured times of kernels are kept for a device and a version of a backend."""
        folder = self._folder / "timing"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{device}-{backend}-{version}.cache"


def link_or_copy(source: Path, destination: Path) -> None:
    """A second name for a file, or a copy where the file system has no hard links or another disk is meant."""
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)
