"""Labelled points in a plane, with a line through those that no other one beats in it."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from edgekit.report.canvas import COLOURS, Canvas, legend
from edgekit.report.frame import Frame, with_unit
from edgekit.report.numbers import quantity, scaled
from edgekit.report.scale import Scale, linear
from edgekit.report.svg import Numbers, colour

_HEIGHT = 260.0


@dataclass(frozen=True)
class Spot:
    """A point; `low` and `high` are the uncertainty of y, both or none. `beaten`: drawn as a cross."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    beaten: bool = False


@dataclass(frozen=True)
class Scatter:
    """Two numbers of each thing; less is better of x, and of y unless `more_is_better`."""

    title: str
    x_title: str
    y_title: str
    spots: tuple[Spot, ...]
    x_unit: str = ""
    y_unit: str = ""
    more_is_better: bool = False

    def describe(self) -> str:
        """Each with both numbers."""
        return "; ".join(self._tip(spot) for spot in self.spots)

    def table(self) -> Numbers:
        """One row a point."""
        rows = tuple(
            (spot.label, quantity(spot.x, self.x_unit), quantity(spot.y, self.y_unit, 4)) for spot in self.spots
        )
        return ("", self.x_title, self.y_title), rows

    def svg(self, width: int, name: str) -> Markup:
        """Axes with units, a legend, whiskers, and the line through what is not beaten."""
        canvas = Canvas(width)
        entries = [
            (colour(index), f"{spot.label}{' (beaten)' if spot.beaten else ''}")
            for index, spot in enumerate(self.spots)
        ]
        top = legend(canvas, entries, 0, 0) + 8
        factor, unit = scaled(max(spot.x for spot in self.spots), self.x_unit)
        x_scale = linear([spot.x * factor for spot in self.spots])
        frame = Frame(canvas, x_scale, self._y_scale(), top, top + _HEIGHT)
        frame.draw(with_unit(self.x_title, unit), with_unit(self.y_title, self.y_unit))
        canvas.path([(frame.x(spot.x * factor), frame.y(spot.y)) for spot in self.front()], "s6 line")
        for index, spot in enumerate(self.spots):
            x, y = frame.x(spot.x * factor), frame.y(spot.y)
            if spot.low is not None and spot.high is not None:
                canvas.line(x, frame.y(spot.low), x, frame.y(spot.high), "median")
            if spot.beaten:
                cross, kind = 5.0, f"s{index % COLOURS + 1} line"
                canvas.line(x - cross, y - cross, x + cross, y + cross, kind, self._tip(spot))
                canvas.line(x - cross, y + cross, x + cross, y - cross, kind, self._tip(spot))
            else:
                canvas.dot(x, y, 5.0, colour(index), self._tip(spot))
        return canvas.svg(self.title, self.describe(), name)

    def front(self) -> list[Spot]:
        """Those that no other spot beats in this plane, by x."""
        sign, chosen = -1 if self.more_is_better else 1, list[Spot]()
        for spot in sorted(self.spots, key=lambda spot: (spot.x, sign * spot.y)):
            if not chosen or sign * spot.y < sign * chosen[-1].y:
                chosen.append(spot)
        return chosen

    def _y_scale(self) -> Scale:
        ends = [end for spot in self.spots for end in (spot.y, spot.low, spot.high) if end is not None]
        return linear(ends, from_zero=False)

    def _tip(self, spot: Spot) -> str:
        beaten = ", beaten" if spot.beaten else ""
        return f"{spot.label}: {quantity(spot.x, self.x_unit)}, {quantity(spot.y, self.y_unit, 4)}{beaten}"
