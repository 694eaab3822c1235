"""Plots as inline SVG: no dependencies, no scripts, nothing fetched. Colours follow the page's light or dark scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

#: Distinguishable for colour-blind readers (https://jfly.uni-koeln.de/color/).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c8c8c")
_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 16, 44


@dataclass(frozen=True)
class Curve:
    """Points (x, y) in rising x, with a name for the legend."""

    name: str
    points: Sequence[tuple[float, float]]


def line_plot(
    curves: Sequence[Curve], x_label: str, y_label: str, title: str, marks: Sequence[tuple[float, str]] = ()
) -> str:
    """Curves over a logarithmic x axis to base 2; `marks` are vertical lines with their labels."""
    xs = [x for curve in curves for x, _ in curve.points]
    top = max((y for curve in curves for _, y in curve.points), default=1.0) * 1.05 or 1.0
    low, high = math.log2(min(xs)), math.log2(max(xs))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log2(x) - low) / ((high - low) or 1)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - y / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_frame(title, x_label, y_label)]
    for value in ticks(top):
        _, y = at(2**low, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for power in range(math.ceil(low), math.floor(high) + 1):
        x, _ = at(2**power, 0)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{short(2**power)}</text>'
        )
    for position, label in marks:
        if 2**low <= position <= 2**high:
            x, _ = at(position, 0)
            parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
            parts.append(f'<text class="tick" x="{x + 4:.1f}" y="{_TOP + 12}">{escape(label)}</text>')
    for index, curve in enumerate(curves):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in curve.points))
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
    return _svg(parts, _HEIGHT) + legend([curve.name for curve in curves])


def stacked_bars(
    rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], limits: Sequence[float], title: str
) -> str:
    """One bar per row, its parts side by side; `limits` draws a line per row (what is available)."""
    longest = max([*(sum(values) for _, values in rows), *limits, 1e-9]) * 1.04
    left, bar, gap = 190, 26, 14
    height = len(rows) * (bar + gap) + 34
    scale = (_WIDTH - left - _RIGHT) / longest
    parts = [f"<title>{escape(title)}</title>"]
    for value in ticks(longest):
        x = left + value * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 28}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 12}" text-anchor="middle">{short(value)} GB</text>')
    for index, ((label, values), limit) in enumerate(zip(rows, limits, strict=True)):
        y, x = 8 + index * (bar + gap), float(left)
        parts.append(
            f'<text class="label" x="{left - 10}" y="{y + bar / 2 + 4:.1f}" text-anchor="end">{escape(label)}</text>'
        )
        for part, value in enumerate(values):
            width = value * scale
            hint = f"<title>{escape(names[part])}: {value:.2f} GB</title>"
            colour = COLOURS[part % len(COLOURS)]
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{bar}" fill="{colour}">{hint}</rect>')
            x += width
        end = left + limit * scale
        parts.append(f'<line class="limit" x1="{end:.1f}" x2="{end:.1f}" y1="{y - 5}" y2="{y + bar + 5}"/>')
    return _svg(parts, height) + legend([*names], "the black line is what the device leaves to a program")


def legend(names: Sequence[str], remark: str = "") -> str:
    """Coloured names below a plot."""
    entries = "".join(
        f'<span><i style="background:{COLOURS[index % len(COLOURS)]}"></i>{escape(name)}</span>'
        for index, name in enumerate(names)
    )
    return f'<p class="legend">{entries}<span>{escape(remark)}</span></p>'


def ticks(top: float, most: int = 6) -> list[float]:
    """Round numbers from 0 to at most `top`."""
    raw = top / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    return [step * index for index in range(int(top / step) + 1)]


def short(value: float) -> str:
    """4096 -> "4k", 0.25 -> "0.25"."""
    if value >= 1024 and value % 1024 == 0:
        return f"{value / 1024:g}k"
    return f"{value:,.10g}"


def _frame(title: str, x_label: str, y_label: str) -> str:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return (
        f"<title>{escape(title)}</title>"
        f'<text class="label" x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="label" transform="translate(14 {(_HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )


def _svg(parts: Sequence[str], height: int) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg">\n{body}\n</svg>'
