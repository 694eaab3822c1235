"""Bringing a checked bundle to its destination."""

from __future__ import annotations

import os
from pathlib import Path

from edgekit.bundle import Bundle, write
from edgekit.bundle.read import read_manifest
from edgekit.errors import RecipeError
from edgekit.recipe.recipe import Recipe


def check_destination(destination: Path, recipe: Recipe) -> None:
    """Refuse, before any work, a destination that holds anything but an earlier bundle of this recipe.

    Raises:
        BundleError: it holds something else than a bundle, or more than a bundle.
        RecipeError: it holds a bundle that this recipe did not make.
    """
    final = Path(os.path.realpath(destination))
    write.check_destination(final, overwrite=True)
    if not final.is_dir() or not any(final.iterdir()):
        return
    made_by = (read_manifest(final).manifest.raw.get("recipe") or {}).get("file")
    if made_by != recipe.path.name:
        raise RecipeError(
            "edgekit make replaces only bundles of its own recipe",
            f"{destination} was made by {made_by or 'edgekit export'}, not by {recipe.path.name}",
            "choose another place with -o, or remove that bundle",
        )


def publish(bundle: Bundle, destination: Path) -> None:
    """Rename a whole bundle, with its measurements, over the earlier one; at no moment is there half of either.

    Raises:
        BundleError: the destination holds something that is not a bundle, or more than a bundle.
    """
    write.publish(bundle.path, destination, overwrite=True)
