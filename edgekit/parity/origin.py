"""Which checkpoint, and which draft heads, a bundle is compared with."""

from __future__ import annotations

from pathlib import Path

from edgekit.bundle import Bundle
from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.draft.head_file import DraftFile, read_heads
from edgekit.errors import BundleError, CheckpointError
from edgekit.files import sha256_of


def checkpoint_of(bundle: Bundle, against: str | None, *, offline: bool = False) -> Checkpoint:
    """The checkpoint given, or the one that the bundle's provenance names, which must still have the same files.

    Raises:
        CheckpointError: it is not there, or has changed since the bundle was made.
        BundleError: none is given, and the bundle names none.
    """
    if against is not None:
        return open_checkpoint(against, offline=offline)
    provenance = bundle.manifest.raw.get("provenance")
    recorded = provenance.get("checkpoint") if isinstance(provenance, dict) else None
    reference = recorded.get("location") if isinstance(recorded, dict) else None
    if not isinstance(recorded, dict) or not isinstance(reference, str):
        raise BundleError(
            "a bundle is compared with the checkpoint that it was made from",
            f"the manifest of {bundle.path} does not name it",
            "name it with --against CHECKPOINT",
        )
    try:
        checkpoint = open_checkpoint(reference, offline=offline)
    except CheckpointError as error:
        raise CheckpointError(
            "a bundle is compared with the checkpoint that it was made from",
            f"{reference}: {error.fact or error.rule}",
            "name it with --against CHECKPOINT",
        ) from error
    _require_same_files(bundle, checkpoint, recorded.get("files"))
    return checkpoint


def heads_of(bundle: Bundle, given: Path | None = None) -> DraftFile | None:
    """The draft heads given, or those that the bundle's provenance names; None for a bundle without.

    Raises:
        CheckpointError: they are not there, or not those that the bundle was made with.
        BundleError: heads are given for a bundle without, or it does not name its own.
    """
    if bundle.manifest.draft is None:
        if given is not None:
            raise BundleError(
                "draft heads are compared with those of the bundle",
                f"{bundle.path} has none",
                "leave --draft out, or make the bundle with them: edgekit export --draft HEADS",
            )
        return None
    provenance = bundle.manifest.raw.get("provenance")
    recorded = provenance.get("draft") if isinstance(provenance, dict) else None
    place = given or (Path(recorded["location"]) if isinstance(recorded, dict) and "location" in recorded else None)
    name = "name it with --draft HEADS"
    if place is None or not isinstance(recorded, dict):
        raise BundleError(_HEADS_RULE, f"the manifest of {bundle.path} does not name it", name)
    if not place.is_file():
        raise CheckpointError(_HEADS_RULE, f"{place} does not exist", name)
    if sha256_of(place) != recorded.get("sha256"):
        raise CheckpointError(_HEADS_RULE, f"{place} is another file than {bundle.path} was made with", name)
    return read_heads(place)


_HEADS_RULE = "a bundle's draft graph is compared with the file of heads that it was made of"


def _require_same_files(bundle: Bundle, checkpoint: Checkpoint, recorded: object) -> None:
    if not isinstance(recorded, list):
        return
    before = {entry["name"]: entry["sha256"] for entry in recorded}
    now = {entry["name"]: entry["sha256"] for entry in checkpoint.files()}
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        raise CheckpointError(
            "a bundle is compared with the files that it was made from",
            f"{changed[0]} of {checkpoint.path} is not the one that {bundle.path} was made from",
            "make the bundle again, or name the right checkpoint with --against CHECKPOINT",
        )
