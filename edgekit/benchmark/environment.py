"""What a figure depends on besides the bundle: machine, load, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import edgekit
from edgekit.device.host import cpu, memory
from edgekit.device.packages import installed_version

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "numpy")


def environment(governor: Path = _GOVERNOR) -> dict[str, Any]:
    """For JSON; what cannot be told is None."""
    processor, installed = cpu(), {name: installed_version(name) for name in _PACKAGES}
    ram = memory()
    return {
        "commit": commit(Path(edgekit.__file__).parent),
        "cpu": processor.model,
        "architecture": processor.architecture,
        "usable_cores": processor.usable_cores,
        "memory_bytes": None if ram is None else ram.total_bytes,
        "governor": governor.read_text().strip() if governor.is_file() else None,
        "load_average": list(os.getloadavg()),
        "system": platform.platform(),
        "versions": {
            "edgekit": edgekit.__version__,
            "python": platform.python_version(),
            **{name: version for name, version in installed.items() if version is not None},
        },
    }


def commit(folder: Path) -> str | None:
    """The commit of edgekit's own source, with "+changes" when files differ from it; None outside a git checkout."""
    head = _git(folder, "rev-parse", "--verify", "HEAD")
    if head is None:
        return None
    # A package directory that git ignores, as in a virtual environment, is not that checkout's.
    if not _git(folder, "ls-files", "--", "__init__.py"):
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return head + ("+changes" if changed else "")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
