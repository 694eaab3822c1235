"""The C++ compiler of this machine."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import EdgekitError

#: Tried in this order where CXX names none.
NAMES = ("c++", "g++", "clang++")
#: Where nothing suitable is installed.
INSTALL = "install one: apt install g++, or set CXX to a C++17 compiler"
#: The library is compiled where it runs, so it may use all that this processor has.
_NATIVE = "-mcpu=native" if platform.machine() == "aarch64" else "-march=native"
FLAGS = ("-std=c++17", "-O3", _NATIVE, "-fPIC", "-shared", "-fvisibility=hidden", "-Wl,-z,defs")
_TIMEOUT_SECONDS = 600
_LAST_LINES = 12


class NativeUnavailable(EdgekitError):
    """Native code cannot be had here: there is no compiler, or compiling failed."""


@dataclass(frozen=True)
class Compiler:
    """A compiler that answered.

    Attributes:
        command: the program and what CXX adds to it.
        version: the first line of its --version.
    """

    command: tuple[str, ...]
    version: str

    def compile(self, sources: list[Path], output: Path) -> None:
        """Make a shared library of sources.

        Raises:
            NativeUnavailable: the compiler failed; the fact ends with its last lines.
        """
        command = [*self.command, *FLAGS, *map(str, sources), "-o", str(output)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NativeUnavailable(_RULE, str(error), INSTALL) from error
        if done.returncode != 0:
            words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_LAST_LINES:])
            raise NativeUnavailable(
                _RULE,
                f"{self.command[0]} ({self.version}) ended with code {done.returncode}:\n{words}",
                "set CXX to another compiler (g++ 11 or newer, clang++ 14 or newer)",
            )


_RULE = "the native operators must compile"


def find_compiler() -> Compiler:
    """CXX, or the first of NAMES on the PATH.

    Raises:
        NativeUnavailable: there is none, or CXX does not run.
    """
    chosen = os.environ.get("CXX")
    if chosen:
        command = tuple(shlex.split(chosen))
        version = _version(command)
        if version is None:
            raise NativeUnavailable("CXX must name a C++ compiler", f"{chosen!r} does not run", INSTALL)
        return Compiler(command, version)
    for name in NAMES:
        path = shutil.which(name)
        version = path and _version((path,))
        if path and version:
            return Compiler((path,), version)
    raise NativeUnavailable(
        "native operators need a C++ compiler", f"none of {', '.join(NAMES)} is on the PATH", INSTALL
    )


def _version(command: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None
