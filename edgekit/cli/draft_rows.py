"""The draft heads of a bundle as labels and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.words import counted

if TYPE_CHECKING:
    from edgekit.bundle import DraftInfo


def draft_rows(draft: DraftInfo) -> list[tuple[str, str]]:
    """Label and value, in the order to print."""
    noise = "all computed" if draft.components == draft.rank else f"{draft.components} computed"
    rows = [
        ("draft heads", f"{counted(draft.tokens, 'tokens')} out of {draft.vocabulary_size:,}, in {draft.file}"),
        ("  components", f"{draft.rank}, {noise}"),
        ("  read", f"the residual stream after layers {', '.join(map(str, draft.feature_layers))}"),
    ]
    if draft.window:
        rows.append(("  see", f"{draft.window} earlier positions"))
    for way, rates in draft.acceptance.items():
        listed = ", ".join(f"{100 * rate:.0f} %" for rate in rates)
        rows.append((f"  accepted, {way}", f"{listed} (as measured in training, each given those before it)"))
    return rows
