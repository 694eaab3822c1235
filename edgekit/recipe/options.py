"""From a recipe to the options of an export."""

from __future__ import annotations

from edgekit.export.options import ExportOptions
from edgekit.recipe.recipe import Recipe


def export_options(recipe: Recipe) -> ExportOptions:
    """The options that a recipe stands for; what it leaves out keeps the default of an export."""
    chosen = {
        **recipe.tables()["quantization"],
        "form": recipe.device.form,
        "max_context": recipe.limits.max_context,
        "name": recipe.model.name,
    }
    return ExportOptions(**{name: value for name, value in chosen.items() if value is not None})
