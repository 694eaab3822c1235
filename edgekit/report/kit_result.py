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
SHAPE = {"kit": {"device": str, "model": str, "dtype": str, "form": str}, "device": _OBJECT}
#: Parts that a run that did not get so far lacks.
PARTS = ("build", "parity", "bench")


@dataclass(frozen=True)
class KitResult:
    """What one run of a device kit wrote.

    Attributes:
        file: where it was read from.
        kit: the kit's own description: device profile, model, dtype, versions.
        device: what the machine said of itself.
        build, parity, bench: None where the run did not get so far.
    """

    file: Path
    kit: dict[str, Any]
    device: dict[str, Any]
    build: dict[str, Any] | None
    parity: dict[str, Any] | None
    bench: dict[str, Any] | None
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
    return KitResult(path, document["kit"], document["device"] or {}, **parts, document=document)


def read_kit_results(paths: Sequence[Path]) -> tuple[KitResult, ...]:
    """Several of them."""
    return tuple(read_kit_result(path) for path in paths)
