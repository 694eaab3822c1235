"""Pictures of what was measured, by matplotlib, which edgekit does without where it is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError


def blank(width: float, height: float) -> Any:
    """A figure of so many inches. Raises EdgekitError: matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise EdgekitError(
            "curves are drawn with matplotlib", "it is not installed here", "pip install matplotlib"
        ) from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, target: Path) -> None:
    """As a PNG without date and version: the same numbers give the same bytes."""
    figure.savefig(target, dpi=110, metadata={"Software": None})
