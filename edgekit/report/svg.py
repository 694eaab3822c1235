"""Plots as inline SVG: bars, stacked bars, lines with ranges, strips of samples with their quartiles.

A plot is described once, without a size, and drawn at the width asked for: `plot.svg(720, "speed-1")`. Its numbers are
also a table (`plot.table()`), for those who cannot see it. Units are those of `edgekit.report.numbers`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from markupsafe import Markup

from edgekit.report.canvas import COLOURS, FONT_SIZE, Canvas, fitted, legend, text_width
from edgekit.report.frame import Frame, with_unit, x_scale_of, y_scale_of
from edgekit.report.numbers import percent, quantity, scaled
from edgekit.report.scale import Scale, linear

#: A table: what its columns are, and its rows.
Numbers = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]

_BAR, _LABEL = 18.0, 18.0
#: From this width on there is room for labels beside bars.
_ROOMY = 560


class Plot(Protocol):
    """Something that can be drawn."""

    @property
    def title(self) -> str:
        """What is shown."""

    def describe(self) -> str:
        """What is to be seen, in words."""

    def svg(self, width: int, name: str) -> Markup:
        """Draw it, `width` pixels wide; `name` is an id no other drawing of the page has."""

    def table(self) -> Numbers:
        """What is drawn, as numbers."""


def colour(index: int) -> str:
    """The class that fills with the colour of the series of that index."""
    return f"c{index % COLOURS + 1}"


@dataclass(frozen=True)
class Bar:
    """A horizontal bar.

    Attributes:
        value: its length, at least 0.
        low, high: its uncertainty, drawn as a whisker; both or none.
        emphasis: drawn in the first colour, others in grey, where any bar of the plot is emphasised.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    emphasis: bool = False


@dataclass(frozen=True)
class Bars:
    """Numbers of one kind beside each other, with that many digits that count."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    digits: int = 3

    def describe(self) -> str:
        """Labels with values."""
        return "; ".join(f"{bar.label}: {self._value(bar)}" for bar in self.bars)

    def table(self) -> Numbers:
        """One row a bar."""
        ranged = any(bar.low is not None for bar in self.bars)
        rows = []
        for bar in self.bars:
            row = (bar.label, self._value(bar))
            rows.append((*row, self._range(bar)) if ranged else row)
        return ("", self.title, "range") if ranged else ("", self.title), tuple(rows)

    def svg(self, width: int, name: str) -> Markup:
        """Each bar beside its label, or below it where there is little room; its value at its end."""
        canvas = Canvas(width)
        left = 0.0 if width < _ROOMY else min(max(text_width(bar.label) for bar in self.bars), width * 0.4) + 12
        room = max(text_width(self._value(bar)) for bar in self.bars) + 10
        ends = [end for bar in self.bars for end in (bar.value, bar.high) if end is not None]
        scale = Scale(0.0, max(ends) or 1.0, ())
        some = any(bar.emphasis for bar in self.bars)
        y = 4.0
        for bar in self.bars:
            canvas.text(0, y + FONT_SIZE + 1, fitted(bar.label, left - 12 if left else width), "soft")
            y += 0.0 if left else _LABEL
            places = [
                left + scale.place(at) * (width - left - room)
                for at in (bar.value, bar.low, bar.high)
                if at is not None
            ]
            tip, kind = f"{bar.label}: {self._value(bar)}", "c6" if some and not bar.emphasis else "c1"
            canvas.rect(left, y, max(places[0] - left, 1.0), _BAR, kind, tip, radius=2)
            if bar.low is not None and bar.high is not None:
                _whisker(canvas, places[1], places[2], y + _BAR / 2)
            canvas.text(max(places) + 7, y + 13.5, self._value(bar), "strong")
            y += _BAR + 8
        canvas.height = y
        return canvas.svg(self.title, self.describe(), name)

    def _value(self, bar: Bar) -> str:
        return quantity(bar.value, self.unit, self.digits)

    def _range(self, bar: Bar) -> str:
        if bar.low is None or bar.high is None:
            return ""
        return f"{quantity(bar.low, self.unit, self.digits)} to {quantity(bar.high, self.unit, self.digits)}"


@dataclass(frozen=True)
class Stack:
    """A whole and its parts: labels and values of at least 0."""

    title: str
    unit: str
    parts: tuple[tuple[str, float], ...]

    @property
    def whole(self) -> float:
        """The sum of the parts."""
        return math.fsum(value for _, value in self.parts)

    def describe(self) -> str:
        """Parts with their shares."""
        shares = ", ".join(f"{label} {percent(value / (self.whole or 1))}" for label, value in self.parts)
        return f"{quantity(self.whole, self.unit)} in all: {shares}"

    def table(self) -> Numbers:
        """One row a part."""
        whole = self.whole or 1
        rows = tuple((label, quantity(value, self.unit), percent(value / whole)) for label, value in self.parts)
        return ("", self.title, "share"), rows

    def svg(self, width: int, name: str) -> Markup:
        """One bar of all parts; their shares within where they fit, and a legend."""
        canvas = Canvas(width)
        x, entries, thick = 0.0, [], 34.0
        for index, (label, value) in enumerate(self.parts):
            share = value / (self.whole or 1)
            size = quantity(value, self.unit)
            canvas.rect(x, 0, max(share * width - 1.5, 0.5), thick, colour(index), f"{label}: {size}, {percent(share)}")
            text = percent(share, 2)
            if text_width(text) + 8 < share * width:
                canvas.text(x + share * width / 2, thick / 2 + 4.5, text, "on", "middle")
            x += share * width
            entries.append((colour(index), f"{label} {size}"))
        canvas.height = legend(canvas, entries, 0, thick + 10)
        return canvas.svg(self.title, self.describe(), name)


@dataclass(frozen=True)
class Point:
    """A point of a line; `low` and `high` are its uncertainty, both or none."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """A line through points in the order of their x."""

    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Lines:
    """How numbers depend on another.

    Attributes:
        limit: a horizontal line with its label, such as a tolerance.
        log_x, log_y: logarithmic axes; points that are not positive are then drawn at the lower end.
    """

    title: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    x_unit: str = ""
    y_unit: str = ""
    limit: tuple[float, str] | None = None
    log_x: bool = False
    log_y: bool = False

    def describe(self) -> str:
        """The range of each line."""
        parts = []
        for series in self.series:
            values = [point.y for point in series.points]
            ends = f"{quantity(min(values), self.y_unit)} to {quantity(max(values), self.y_unit)}"
            parts.append(f"{series.label}: {ends}")
        if self.limit is not None:
            parts.append(f"{self.limit[1]}: {quantity(self.limit[0], self.y_unit)}")
        return "; ".join(parts)

    def table(self) -> Numbers:
        """One row for each x, one column for each line."""
        places = list(dict.fromkeys(point.x for series in self.series for point in series.points))
        found = [{point.x: point.y for point in series.points} for series in self.series]
        rows = tuple(
            (quantity(x, self.x_unit), *(quantity(ys[x], self.y_unit) if x in ys else "" for ys in found))
            for x in sorted(places)
        )
        return (self.x_title, *(series.label for series in self.series)), rows

    def svg(self, width: int, name: str) -> Markup:
        """Axes with units, a legend where there is more than one line."""
        canvas = Canvas(width)
        entries = [(colour(index), series.label) for index, series in enumerate(self.series)]
        top = legend(canvas, entries, 0, 0) + 8 if len(entries) > 1 else 4.0
        points = [point for series in self.series for point in series.points]
        heights = [y for point in points for y in (point.y, point.low, point.high) if y is not None]
        if self.limit is not None:
            heights.append(self.limit[0])
        y_factor, y_unit = scaled(max(heights, default=1.0), self.y_unit)
        x_factor, x_unit = scaled(max((point.x for point in points), default=1.0), self.x_unit)
        y_scale = y_scale_of([height * y_factor for height in heights], self.log_y)
        x_scale = x_scale_of([point.x * x_factor for point in points], self.log_x)
        frame = Frame(canvas, x_scale, y_scale, top, top + 210)
        frame.draw(with_unit(self.x_title, x_unit), with_unit(self.y_title, y_unit))
        if self.limit is not None:
            frame.limit(self.limit[0] * y_factor, self.limit[1])
        for index, series in enumerate(self.series):
            self._draw(frame, index, series, x_factor, y_factor)
        return canvas.svg(self.title, self.describe(), name)

    def _draw(self, frame: Frame, index: int, series: Series, x_factor: float, y_factor: float) -> None:
        def at(point: Point, y: float) -> tuple[float, float]:
            return frame.x(point.x * x_factor), frame.y(y * y_factor)

        ranged = [point for point in series.points if point.low is not None and point.high is not None]
        upper = [at(point, point.high or 0.0) for point in ranged]
        lower = [at(point, point.low or 0.0) for point in reversed(ranged)]
        frame.canvas.path([*upper, *lower], f"{colour(index)} faint", closed=True)
        frame.canvas.path([at(point, point.y) for point in series.points], f"s{index % COLOURS + 1} line")
        radius = 3.0 if len(series.points) <= 40 else 2.0
        for point in series.points:
            where = f"{self.x_title} {quantity(point.x, self.x_unit)}"
            tip = f"{series.label}, {where}: {quantity(point.y, self.y_unit)}"
            frame.canvas.dot(*at(point, point.y), radius, colour(index), tip)


@dataclass(frozen=True)
class Strips:
    """Samples of several kinds on one axis: every sample a dot, with a box from the first to the third quartile.

    Attributes:
        groups: label and samples of each, at least one.
    """

    title: str
    unit: str
    axis: str
    groups: tuple[tuple[str, tuple[float, ...]], ...]
    from_zero: bool = False

    def describe(self) -> str:
        """Median and range of each group."""
        return "; ".join(
            f"{label}: median {quantity(statistics.median(samples), self.unit)} of {len(samples)}, "
            f"{quantity(min(samples), self.unit)} to {quantity(max(samples), self.unit)}"
            for label, samples in self.groups
        )

    def table(self) -> Numbers:
        """One row a group."""
        rows = []
        for label, samples in self.groups:
            low, middle, high = quartiles(samples)
            numbers = (min(samples), low, middle, high, max(samples))
            rows.append((label, *(quantity(value, self.unit) for value in numbers), f"{len(samples):,}"))
        return ("", "smallest", "first quartile", "median", "third quartile", "largest", "samples"), tuple(rows)

    def svg(self, width: int, name: str) -> Markup:
        """A row for each group, its label above it, and the axis below."""
        canvas = Canvas(width)
        everything = [sample for _, samples in self.groups for sample in samples]
        factor, unit = scaled(max(everything), self.unit)
        most = max(4, min(8, width // 90))
        scale = linear([sample * factor for sample in everything], from_zero=self.from_zero, most_ticks=most)
        bottom = 54.0 * len(self.groups) + 2
        frame = Frame(canvas, scale, None, 0, bottom, left=8)
        frame.draw(with_unit(self.axis, unit), "")
        for index, (label, samples) in enumerate(self.groups):
            y, kind = 54.0 * index + 2, colour(index)
            self._label(canvas, y + FONT_SIZE, label, samples)
            _strip(frame, y + 34, kind, [sample * factor for sample in samples])
        return canvas.svg(self.title, self.describe(), name)

    def _label(self, canvas: Canvas, y: float, label: str, samples: Sequence[float]) -> None:
        median = f"median {quantity(statistics.median(samples), self.unit)}"
        canvas.text(0, y, fitted(label, max(40.0, canvas.width - text_width(median) - 24)), "soft")
        canvas.text(canvas.width, y, median, "strong", "end")


def _strip(frame: Frame, centre: float, kind: str, samples: Sequence[float]) -> None:
    low, middle, high = quartiles(samples)
    canvas, left, right, box = frame.canvas, frame.x(low), frame.x(high), 24.0
    canvas.line(frame.x(min(samples)), centre, frame.x(max(samples)), centre, "reach")
    canvas.rect(left, centre - box / 2, max(right - left, 1.0), box, f"{kind} faint", radius=3)
    for number, sample in enumerate(samples):
        # Multiples of the golden ratio spread evenly, and alike at each drawing.
        shift = ((number * 0.618034) % 1 - 0.5) * (box - 6)
        canvas.dot(frame.x(sample), centre + shift, 2.4, f"{kind} sample")
    canvas.line(frame.x(middle), centre - box / 2, frame.x(middle), centre + box / 2, "median")


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile, interpolated between samples with both ends counted."""
    if len(samples) == 1:
        return samples[0], samples[0], samples[0]
    first, second, third = statistics.quantiles(samples, n=4, method="inclusive")
    return first, second, third


def _whisker(canvas: Canvas, low: float, high: float, y: float) -> None:
    canvas.line(low, y, high, y, "median")
    for end in (low, high):
        canvas.line(end, y - 4, end, y + 4, "median")
