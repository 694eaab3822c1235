"""Opening a bundle: nothing is used before its files have been checked against the manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from edgekit.bundle.engine_entry import ENGINES
from edgekit.bundle.manifest import EXPORT_AGAIN, MANIFEST_NAME, FileEntry, Manifest
from edgekit.errors import BundleError
from edgekit.files import sha256_of

#: Measurements kept beside the manifest, which stays as it was written.
SIDECAR_FILES = ("parity.json", "eval.json", "bench.json")
UNFINISHED = re.compile(r"^\..+\.(partial|replaced)-\d+(-\d+)?$")

Status = Literal["ok", "missing", "truncated", "grown", "altered", "not a file", "unlisted"]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. `manifest_sha256` is what measurements of this bundle are tied to."""

    path: Path
    manifest: Manifest
    manifest_sha256: str

    def has(self, name: str) -> bool:
        """Whether the manifest lists the file."""
        return any(entry.name == name for entry in self.manifest.files)

    def file(self, name: str) -> Path:
        """Path of a listed file. Raises BundleError when the manifest does not list it."""
        if not self.has(name):
            listed = ", ".join(entry.name for entry in self.manifest.files)
            raise BundleError(
                f"only files that the manifest lists are used, and {name} is not one of them",
                f"{self.path} lists {listed}",
                EXPORT_AGAIN,
            )
        return self.path / name

    @property
    def graph(self) -> Path:
        """Path of the ONNX file."""
        return self.path / self.manifest.graph.file


@dataclass(frozen=True)
class FileCheck:
    """What was found for one file; `expected_bytes` is None for a file the manifest does not list."""

    name: str
    status: Status
    expected_bytes: int | None
    found_bytes: int | None
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok"


def read_bundle(
    path: str | Path,
    *,
    verify: Literal["size", "full"] = "size",
    progress: Callable[[int], None] | None = None,
    engines: bool = True,
) -> Bundle:
    """Open a bundle after checking it.

    Args:
        verify: "size" checks that every file is there with its size; "full" also hashes every file.
        progress: called with the number of bytes hashed since the last call.
        engines: check the files of engines too; a damaged one can be built again as long as the rest is whole.

    Raises:
        BundleError: naming the file or field that is wrong, and what to do.
    """
    bundle = read_manifest(path)
    bad = [
        check
        for entry in bundle.manifest.files
        if (engines or not entry.name.startswith(ENGINES + "/"))
        and not (check := check_file(bundle.path, entry, full=verify == "full", progress=progress)).ok
    ]
    if bad:
        more = f" (and {len(bad) - 1} more: edgekit verify {bundle.path})" if len(bad) > 1 else ""
        raise BundleError(
            "a bundle's files must be as its manifest says",
            f"{bundle.path / bad[0].name} is {describe(bad[0])}{more}",
            mended_by(bundle, bad[0].name),
        )
    return bundle


def read_manifest(path: str | Path) -> Bundle:
    """Open a bundle by its manifest alone, without looking at its files. Raises BundleError."""
    folder = Path(path)
    if not folder.exists():
        raise BundleError(
            "a bundle is a directory that edgekit export made",
            f"{folder} does not exist",
            "check the path, or make the bundle: edgekit export CHECKPOINT -o BUNDLE --dtype DTYPE",
        )
    if not folder.is_dir():
        raise BundleError(
            "a bundle is a directory that edgekit export made",
            f"{folder} is a file",
            "give the directory that holds manifest.json",
        )
    if UNFINISHED.match(folder.resolve().name):
        raise BundleError(
            "a bundle is used once it is whole", f"{folder} was left by an export that did not finish", EXPORT_AGAIN
        )
    file = folder / MANIFEST_NAME
    if not file.is_file():
        raise BundleError(
            "a bundle holds a manifest.json", f"{folder} has none", "give the directory that edgekit export made"
        )
    content = file.read_bytes()
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError("manifest.json must be valid JSON", f"{file}: {error}", EXPORT_AGAIN) from error
    return Bundle(folder, Manifest.from_dict(document), sha256(content).hexdigest())


def check_files(bundle: Bundle, *, full: bool, progress: Callable[[int], None] | None = None) -> Iterator[FileCheck]:
    """Check every listed file, then report files that the manifest does not list (measurements are expected)."""
    for entry in bundle.manifest.files:
        yield check_file(bundle.path, entry, full=full, progress=progress)
    for name in unlisted_files(bundle.path, [entry.name for entry in bundle.manifest.files]):
        yield FileCheck(name, "unlisted", None, (bundle.path / name).lstat().st_size, "the manifest does not list it")


def unlisted_files(folder: Path, listed: Collection[str]) -> list[str]:
    """Files below a bundle that are neither listed nor measurements, nor the remains of a measurement cut short."""
    expected = {*listed, MANIFEST_NAME, *SIDECAR_FILES}
    below = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in below if not UNFINISHED.match(path.name))
    return sorted(name for name in names if name not in expected)


def check_file(
    folder: Path, entry: FileEntry, *, full: bool, progress: Callable[[int], None] | None = None
) -> FileCheck:
    """Compare one file with its entry: a regular file (no link anywhere on the way), its size, and its hash if full."""
    path = folder / entry.name
    if not path.exists() and not path.is_symlink():
        return FileCheck(entry.name, "missing", entry.bytes, None)
    # Equal only when no component below the bundle is a link, so nothing outside the bundle is ever read.
    if path.resolve() != folder.resolve() / entry.name:
        return FileCheck(entry.name, "not a file", entry.bytes, None, "a symbolic link")
    if not path.is_file():
        return FileCheck(entry.name, "not a file", entry.bytes, None, "a directory or a device")
    found = path.stat().st_size
    if found != entry.bytes:
        return FileCheck(entry.name, "truncated" if found < entry.bytes else "grown", entry.bytes, found)
    if full and (digest := sha256_of(path, progress)) != entry.sha256:
        return FileCheck(entry.name, "altered", entry.bytes, found, f"sha256 {digest}, expected {entry.sha256}")
    return FileCheck(entry.name, "ok", entry.bytes, found)


def mended_by(bundle: Bundle, name: str) -> str:
    """The command that makes a damaged file again."""
    for engine in bundle.manifest.engines:
        if name.startswith(engine.directory + "/"):
            return f"build the engine again: edgekit build {bundle.path} --device {engine.device} --rebuild"
    return EXPORT_AGAIN


def describe(check: FileCheck) -> str:
    """The finding in words, to follow the file's name and "is"."""
    if check.status in ("truncated", "grown"):
        return f"{check.status}: {check.found_bytes} bytes instead of {check.expected_bytes}"
    return f"{check.status}: {check.detail}" if check.detail else check.status
