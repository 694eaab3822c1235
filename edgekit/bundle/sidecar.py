"""Measurements beside a bundle: parity.json, eval.json, bench.json.

They are tied to the manifest they were taken with by its hash, so that a measurement of another export of the same
directory is never taken for this one's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from edgekit.bundle.manifest import MANIFEST_NAME
from edgekit.bundle.read import SIDECAR_FILES, Bundle
from edgekit.errors import BundleError
from edgekit.files import atomic_write

SIDECARS = tuple(name.removesuffix(".json") for name in SIDECAR_FILES)
KEY = "manifest_sha256"
TIME = "measured_at"


@dataclass(frozen=True)
class Measurement:
    """A measurement as it was found.

    Attributes:
        document: what was measured, without what it is tied by.
        current: whether it was taken with the bundle's own manifest.
        manifest_sha256: of the manifest it was taken with; None where it does not say.
        measured_at: when it was kept, ISO 8601 in UTC; None where it does not say, as in older ones.
    """

    document: dict[str, Any]
    current: bool
    manifest_sha256: str | None
    measured_at: str | None


def write_sidecar(bundle: Bundle, name: str, payload: dict[str, Any]) -> None:
    """Store a measurement ("parity", "eval" or "bench"), replacing the earlier one in one step."""
    _write(bundle, name, payload, datetime.now(timezone.utc).isoformat(timespec="seconds"))


def keep_measurement(bundle: Bundle, name: str, found: Measurement) -> None:
    """Store a measurement that was made before: one of the same graph, for another manifest."""
    _write(bundle, name, found.document, found.measured_at)


def _write(bundle: Bundle, name: str, payload: dict[str, Any], time: str | None) -> None:
    tie = {KEY: bundle.manifest_sha256, **({TIME: time} if time is not None else {})}
    text = json.dumps({**tie, **payload}, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(bundle.path / _file_name(name), text + "\n")


def read_sidecar(bundle: Bundle, name: str) -> dict[str, Any] | None:
    """The measurement without its key; None when there is none, or it was taken with another manifest.

    Raises:
        BundleError: the file is there and is not valid.
    """
    found = find_measurement(bundle, name)
    return found.document if found is not None and found.current else None


def find_measurement(bundle: Bundle, name: str) -> Measurement | None:
    """The measurement that is there, be it of this manifest or of another; None when there is none.

    Raises:
        BundleError: the file is there and is not valid.
    """
    path = bundle.path / _file_name(name)
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path.name} must be valid JSON",
            f"{path}: {error}",
            f"delete it and measure again: edgekit {name} {bundle.path}",
        ) from error
    if not isinstance(document, dict):
        return Measurement({}, False, None, None)
    key, time = document.pop(KEY, None), document.pop(TIME, None)
    return Measurement(
        document,
        current=key == bundle.manifest_sha256,
        manifest_sha256=key if isinstance(key, str) else None,
        measured_at=time if isinstance(time, str) else None,
    )


def _file_name(name: str) -> str:
    if name not in SIDECARS:
        raise ValueError(f"{name!r} is no measurement beside {MANIFEST_NAME}; there are {', '.join(SIDECARS)}")
    return f"{name}.json"
