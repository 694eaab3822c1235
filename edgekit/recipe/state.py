"""What an earlier run of a recipe left: the finished bundle, or a whole one that was not compared yet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from edgekit.bundle import Bundle, check_files, read_sidecar
from edgekit.bundle.read import describe, read_manifest
from edgekit.errors import BundleError, RecipeError
from edgekit.files import atomic_write, cache_dir
from edgekit.progress import Progress
from edgekit.recipe.inputs import export_inputs, parity_inputs
from edgekit.recipe.recipe import Recipe

#: Below a manifest's "recipe": the hash of what the bundle was made from.
INPUTS_KEY = "inputs"


def waiting_place(destination: Path) -> Path:
    """Where a whole bundle waits until it has passed its checks: beside its destination, on the same disk."""
    return destination.with_name(f".{destination.name}.unproven")


@dataclass(frozen=True)
class Found:
    """Which of a recipe's results are there and up to date.

    Attributes:
        bundle: the bundle made from the recipe as it is now, whole; None when it has to be made.
        published: whether it is at the destination.
        reason: why it has to be made, or where it is.
    """

    bundle: Bundle | None
    published: bool
    reason: str


def find_bundle(recipe: Recipe, destination: Path, progress: Progress) -> Found:
    """Look for the recipe's bundle at its destination, then in its waiting place, and check every byte of it."""
    inputs = export_inputs(recipe)
    reason = f"there is no bundle at {destination} yet"
    for place, published in ((destination, True), (waiting_place(destination), False)):
        if not (place / "manifest.json").exists():
            continue
        objection, bundle = _examine(place, inputs, progress)
        if bundle is not None:
            where = "up to date" if published else "made by an earlier run that was cut short"
            return Found(bundle, published, where)
        if published:
            reason = objection
    return Found(None, False, reason)


def _examine(place: Path, inputs: str, progress: Progress) -> tuple[str, Bundle | None]:
    """Why the bundle at `place` cannot be used as the result, or the bundle."""
    try:
        bundle = read_manifest(place)
    except BundleError as error:
        return error.fact, None
    if (bundle.manifest.raw.get("recipe") or {}).get(INPUTS_KEY) != inputs:
        return "the recipe, edgekit or a package it uses has changed since", None
    progress.stage("checking the bundle", bundle.manifest.bytes, "bytes")
    for check in check_files(bundle, full=True, progress=progress.advance):
        if not check.ok:
            return f"{check.name} is {describe(check).split(':')[0]}", None
    return "", bundle


class Record:
    """The checks that a bundle passed, kept in the cache under the hash of its manifest."""

    def __init__(self, bundle: Bundle, recipe: Recipe) -> None:
        self._bundle = bundle
        self._recipe = recipe
        self._path = cache_dir() / "make" / f"{bundle.manifest_sha256}.json"

    def fingerprint_passed(self) -> bool:
        """Whether this bundle was compared with the golden fingerprint as it is now."""
        golden = _hash_of(self._recipe.fingerprint_path)
        return golden is not None and self._read().get("fingerprint") == golden

    def parity_passed(self) -> bool:
        """Whether this bundle passed this comparison and the measurement still lies beside it."""
        try:
            measured = read_sidecar(self._bundle, "parity")
        except BundleError:
            return False
        passed = measured is not None and measured.get("passed") is True
        return passed and self._read().get("parity") == parity_inputs(self._recipe)

    def keep_fingerprint(self) -> None:
        self._keep(fingerprint=_hash_of(self._recipe.fingerprint_path))

    def keep_parity(self) -> None:
        self._keep(parity=parity_inputs(self._recipe))

    def _keep(self, **entries: str | None) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self._path, json.dumps({**self._read(), **entries}, indent=2) + "\n")

    def _read(self) -> dict[str, str]:
        try:
            document = json.loads(self._path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}  # the checks are made again
        return document if isinstance(document, dict) else {}


def _hash_of(path: Path) -> str | None:
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else None


@contextmanager
def only_maker(destination: Path) -> Iterator[None]:
    """Hold the right to make the bundle at `destination` until the block ends or the process dies.

    Raises:
        RecipeError: another process holds it.
    """
    import fcntl

    folder = cache_dir() / "make"
    folder.mkdir(parents=True, exist_ok=True)
    name = sha256(os.fsencode(os.path.realpath(destination))).hexdigest()[:16]
    descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecipeError(
                "one edgekit make at a time makes a bundle",
                f"another one is making {destination}",
                "wait for it to end, or choose another place with -o",
            ) from error
        yield
    finally:
        os.close(descriptor)
