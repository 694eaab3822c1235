"""Which of edgekit's dependencies are installed, told from their metadata without importing them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("cpu", "cuda", "tensorrt", "export", "dev")


@dataclass(frozen=True)
class PackageState:
    """One dependency: what is needed ("onnx>=1.23"), what is there (None: nothing), and for which extra ("": base)."""

    name: str
    needed: str
    installed: str | None
    extra: str
    fits: bool


def package_states(requirements: Iterable[str]) -> list[PackageState]:
    """The state of each requirement that applies to this interpreter, base first, then by extra.

    Args:
        requirements: as `importlib.metadata.requires` gives them, with markers.
    """
    parsed = [Requirement(text) for text in requirements]
    states = []
    for extra in ("", *EXTRAS):
        for requirement in parsed:
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            base = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if not applies or (extra and base):
                continue
            installed = installed_version(requirement.name)
            fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
            name = canonicalize_name(requirement.name)
            states.append(PackageState(name, f"{name}{requirement.specifier}", installed, extra, fits))
    return states


def installed_version(name: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def onnxruntime_providers(timeout_s: float = 60.0) -> tuple[list[str], str]:
    """The execution providers of the installed onnxruntime, or an empty list and the reason.

    It is imported in a process of its own: a build for another CPU dies of an illegal instruction.
    """
    code = "import json, onnxruntime; print(json.dumps(onnxruntime.get_available_providers()))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return [], f"importing it took more than {timeout_s:.0f} s"
    if done.returncode < 0:
        return [], f"importing it ended with {signal.Signals(-done.returncode).name}"
    if done.returncode > 0:
        return [], done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    providers: list[str] = json.loads(done.stdout)
    return providers, ""
