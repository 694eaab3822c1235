"""Measurements beside a bundle: parity.json, eval.json, bench.json.

They are tied to the manifest they were taken with by its hash, so that a measurement of another export of the same
directory is never taken for this one's.
"""

from __future__ import annotations

import json
from typing import Any

from edgekit.bundle.manifest import MANIFEST_NAME
from edgekit.bundle.read import SIDECAR_FILES, Bundle
from edgekit.errors import BundleError
from edgekit.files import atomic_write

SIDECARS = tuple(name.removesuffix(".json") for name in SIDECAR_FILES)
KEY = "manifest_sha256"


def write_sidecar(bundle: Bundle, name: str, payload: dict[str, Any]) -> None:
    """Store a measurement ("parity", "eval" or "bench"), replacing the earlier one in one step."""
    text = json.dumps({KEY: bundle.manifest_sha256, **payload}, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(bundle.path / _file_name(name), text + "\n")


def read_sidecar(bundle: Bundle, name: str) -> dict[str, Any] | None:
    """The measurement without its key; None when there is none, or it was taken with another manifest.

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
    if not isinstance(document, dict) or document.pop(KEY, None) != bundle.manifest_sha256:
        return None
    return document


def _file_name(name: str) -> str:
    if name not in SIDECARS:
        raise ValueError(f"{name!r} is no measurement beside {MANIFEST_NAME}; there are {', '.join(SIDECARS)}")
    return f"{name}.json"
