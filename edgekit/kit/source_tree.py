"""edgekit itself, copied into a kit: what runs there is what was tested here."""

from __future__ import annotations

import shutil
from pathlib import Path

import edgekit
from edgekit.files import copy_tree

#: Not needed on a device, and large or only for a workstation.
_LEFT_OUT = ("__pycache__", "*.pyc", "calibration.txt")


def copy_source(destination: Path) -> Path:
    """Copy the package edgekit below `destination`, links as what they point to."""
    package = Path(edgekit.__file__).parent
    target = destination / package.name
    copy_tree(package, target, leave_out=shutil.ignore_patterns(*_LEFT_OUT))
    return target
