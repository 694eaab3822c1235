"""Result files of device kits: what a device built, proved and measured, read back here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import BundleError
from edgekit.report.shape import require_shape

_AGAIN = "give the result file that the kit's command wrote"
_OBJECT: Any = ({}, None)
#: What `edgekit.kit.run` writes of every run.
SHAPE = {
    "kit": {"device": str, "model": str, "dtype": str, "form": str},
    "failure": ({"stage": str, "rule": str, "fact": str, "next_step": str}, None),
}
#: Stages that a run that did not get so far lacks.
PARTS = ("machine", "build", "parity", "benchmark")


@dataclass(frozen=True)
class KitResult:
    """What one run of a device kit wrote.

    Attributes:
        file: where it was read from.
        kit: the kit's own description: device profile, model, dtype, versions.
        machine: what the device said of itself.
        build, parity, benchmark: as those stages wrote them. All four are None where the run did not get so far.
        failure: the stage that ended it, and why; None where all went well, or where the run was not ended by an error
            that it could write down.
        passed: whether every stage came to its end.
    """

    file: Path
    kit: dict[str, Any]
    machine: dict[str, Any] | None
    build: dict[str, Any] | None
    parity: dict[str, Any] | None
    benchmark: dict[str, Any] | None
    failure: dict[str, Any] | None
    passed: bool
    document: dict[str, Any]


def read_kit_result(path: Path) -> KitResult:
    """A result file.

    Raises:
        BundleError: it is no JSON, or none that a kit wrote; the field is named.
    """
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError("a kit's result is valid JSON", f"{path}: {error}", _AGAIN) from error
    require_shape(document, SHAPE, str(path), _AGAIN)
    parts = {name: document.get(name) for name in PARTS}
    require_shape(parts, dict.fromkeys(PARTS, _OBJECT), str(path), _AGAIN)
    passed = document.get("passed") is True
    return KitResult(path, document["kit"], **parts, failure=document["failure"], passed=passed, document=document)


def read_kit_results(paths: Sequence[Path]) -> tuple[KitResult, ...]:
    """Several of them."""
    return tuple(read_kit_result(path) for path in paths)
