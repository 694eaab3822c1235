"""A comparison as a PNG: size and quality, and speed."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from edgekit.compare.page import plots
from edgekit.compare.run import Comparison
from edgekit.errors import EdgekitError
from edgekit.report.numbers import scaled
from edgekit.report.scatter import Scatter

#: Marks what edgekit made, so that nothing else is overwritten.
SOFTWARE = "edgekit compare"


def require_matplotlib() -> None:
    """Raise EdgekitError unless it is installed."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise EdgekitError(
            "plots are drawn with matplotlib",
            "it is not installed here",
            "pip install matplotlib, or write a page, which needs none: -o FILE.html",
        )


def png_of(found: Comparison) -> bytes:
    """The drawing. Raises EdgekitError where nothing was measured that could be drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = plots(found)
    speeds = [(row.label, row.speed["samples"]) for row in found.rows if row.speed is not None]
    panels = len(drawn) + bool(speeds)
    if not panels:
        raise EdgekitError("a plot shows what was measured", "nothing was", "see the reasons of the failures")
    figure = Figure(figsize=(0.5 + 4.6 * panels, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for plot in drawn:
        _scatter(axes.pop(0), plot)
    if speeds:
        (panel,) = axes
        panel.boxplot([samples for _, samples in speeds], orientation="horizontal", whis=(0, 100), widths=0.5)
        panel.set_yticks(range(1, len(speeds) + 1), [label for label, _ in speeds])
        panel.invert_yaxis()
        panel.set_xlim(left=0)
        panel.set_xlabel("texts/s" if found.encoders else "tokens/s")
        panel.grid(axis="x", alpha=0.3)
    buffer = BytesIO()
    # No date in the file: the same comparison gives the same bytes.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": SOFTWARE})
    return buffer.getvalue()


def _scatter(panel: Any, plot: Scatter) -> None:
    factor, unit = scaled(max(spot.x for spot in plot.spots), plot.x_unit)
    front = plot.front()
    panel.plot([spot.x * factor for spot in front], [spot.y for spot in front], color="0.6", linewidth=1, zorder=1)
    for spot in plot.spots:
        if spot.low is not None and spot.high is not None:
            panel.plot([spot.x * factor] * 2, [spot.low, spot.high], color="0.5", linewidth=1, zorder=1)
        panel.scatter([spot.x * factor], [spot.y], marker="x" if spot.beaten else "o", zorder=2)
        label = f"{spot.label} (beaten)" if spot.beaten else spot.label
        panel.annotate(label, (spot.x * factor, spot.y), (6, 5), textcoords="offset points", fontsize="small")
    panel.margins(x=0.25, y=0.15)
    panel.set_xlabel(f"size ({unit})")
    panel.set_ylabel(f"{plot.y_title} ({'more' if plot.more_is_better else 'less'} is better)")
    panel.grid(alpha=0.3)
