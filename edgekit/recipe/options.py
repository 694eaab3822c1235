"""From a recipe to the options of an export."""

from __future__ import annotations

from edgekit.errors import RecipeError
from edgekit.export.options import ExportOptions
from edgekit.files import sha256_of
from edgekit.recipe.recipe import Recipe


def _checked_heads(recipe: Recipe) -> str | None:
    """The file of the draft heads, which must be the one that the recipe names. Raises RecipeError."""
    path = recipe.draft_heads()
    if path is None:
        return None
    found = sha256_of(path) if path.is_file() else None
    if found != recipe.draft.sha256:
        raise RecipeError(
            f"{recipe.path}: the draft heads must be those whose SHA-256 the recipe gives",
            f"{path} has {found}, the recipe says {recipe.draft.sha256}" if found else f"{path} does not exist",
            "restore the file, or, if these heads are meant, write their digits into [draft] sha256",
        )
    return str(path)


def export_options(recipe: Recipe) -> ExportOptions:
    """The options that a recipe stands for; what it leaves out keeps the default of an export.

    Raises:
        RecipeError: the draft heads are not those whose hash the recipe gives.
    """
    chosen = {
        **recipe.tables()["quantization"],
        "form": recipe.device.form,
        "max_context": recipe.limits.max_context,
        "name": recipe.model.name,
        "draft": _checked_heads(recipe),
        "draft_components": recipe.draft.components,
        "draft_tokens": recipe.draft.tokens,
    }
    return ExportOptions(**{name: value for name, value in chosen.items() if value is not None})
