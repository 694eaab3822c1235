"""The checkpoint of a recipe: pulled where needed, and held to the recipe's hashes."""

from __future__ import annotations

from edgekit.checkpoint import Checkpoint, open_checkpoint, pull
from edgekit.checkpoint.reference import local_path
from edgekit.errors import CheckpointError, RecipeError
from edgekit.progress import Progress
from edgekit.recipe.recipe import Recipe


def is_local(recipe: Recipe) -> bool:
    """Whether the recipe's checkpoint is on this machine, in the cache or as a path."""
    reference = recipe.checkpoint_reference()
    if local_path(reference) is not None:
        return True
    try:
        pull(reference, offline=True, say=lambda line: None)
    except CheckpointError:
        return False
    return True


def checkpoint_of_recipe(recipe: Recipe, offline: bool, progress: Progress) -> Checkpoint:
    """Pull and open the recipe's checkpoint.

    Raises:
        CheckpointError: it cannot be had or read.
        RecipeError: its files are not those whose hashes the recipe gives.
    """
    reference = recipe.checkpoint_reference()
    # No stage yet: pip and the hub draw their own bars, and two displays would tear each other.
    path = pull(reference, offline=offline, say=progress.note)
    checkpoint = open_checkpoint(path, offline=True)
    progress.stage("checking the checkpoint")
    check_hashes(checkpoint, recipe)
    return checkpoint


def check_hashes(checkpoint: Checkpoint, recipe: Recipe) -> None:
    """Raise RecipeError unless the checkpoint consists of the files that the recipe names, byte for byte."""
    expected = recipe.checkpoint.sha256
    found = {file["name"]: file["sha256"] for file in checkpoint.files()}
    rule = f"{recipe.path}: the checkpoint must be the one whose files' SHA-256 the recipe gives"
    where = "restore it, or, if this checkpoint is meant, write into [checkpoint.sha256]:\n"
    right = where + "\n".join(f'    "{name}" = "{digest}"' for name, digest in found.items())
    for name, digest in expected.items():
        if name not in found:
            raise RecipeError(rule, f"{checkpoint.path} has no file {name}", right)
        if found[name] != digest:
            raise RecipeError(rule, f"{name} has {found[name]}, the recipe says {digest}", right)
    if extra := sorted(set(found) - set(expected)):
        raise RecipeError(rule, f"the recipe gives no hash of {', '.join(extra)}", right)
