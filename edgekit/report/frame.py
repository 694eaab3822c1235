"""Axes, their ticks and titles, and places between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgekit.report.canvas import Canvas, text_width
from edgekit.report.scale import Scale, linear, logarithmic

_TICK_SIZE = 11.0


@dataclass
class Frame:
    """The area of a plot on its canvas, in pixels; without a y scale only the x axis is drawn.

    Attributes:
        top, bottom: of the area; titles and numbers come outside it.
        left: of the area; a y axis makes it wider by its numbers.
    """

    canvas: Canvas
    x_scale: Scale
    y_scale: Scale | None
    top: float
    bottom: float
    left: float = 0.0
    right: float = 0.0

    def __post_init__(self) -> None:
        # Half of the last number lies beyond its tick.
        last = text_width(self.x_scale.label(self.x_scale.ticks[-1]), _TICK_SIZE) / 2
        self.right = self.canvas.width - max(last, 4.0)
        first = text_width(self.x_scale.label(self.x_scale.ticks[0]), _TICK_SIZE) / 2
        self.left = max(self.left, first)
        if self.y_scale is not None:
            numbers = [self.y_scale.label(tick) for tick in self.y_scale.ticks]
            self.left = max(self.left, max(text_width(number, _TICK_SIZE) for number in numbers) + 8)

    def x(self, value: float) -> float:
        """The place of a number on the x axis."""
        return self.left + self.x_scale.place(value) * (self.right - self.left)

    def y(self, value: float) -> float:
        """The place of a number on the y axis."""
        assert self.y_scale is not None
        return self.bottom - self.y_scale.place(value) * (self.bottom - self.top)

    def draw(self, x_title: str, y_title: str) -> None:
        """Grid, numbers and titles; grows the canvas to hold them."""
        if y_title:
            self.canvas.text(0, self.top + 11, y_title, "soft")
            self.top += 22
            self.bottom += 22
        for tick in self.x_scale.ticks:
            self.canvas.line(self.x(tick), self.top, self.x(tick), self.bottom, "grid")
        for tick in self._apart(self.x_scale):
            self.canvas.text(self.x(tick), self.bottom + 15, self.x_scale.label(tick), "tick", "middle")
        if self.y_scale is not None:
            for tick in self.y_scale.ticks:
                self.canvas.line(self.left, self.y(tick), self.right, self.y(tick), "grid")
                self.canvas.text(self.left - 6, self.y(tick) + 4, self.y_scale.label(tick), "tick", "end")
        self.canvas.line(self.left, self.bottom, self.right, self.bottom, "axis")
        self.canvas.text((self.left + self.right) / 2, self.bottom + 33, x_title, "soft", "middle")
        self.canvas.height = max(self.canvas.height, self.bottom + 40)

    def limit(self, value: float, label: str) -> None:
        """A dashed line across at a number of the y axis, with its label above it."""
        y = self.y(value)
        self.canvas.line(self.left, y, self.right, y, "limit")
        self.canvas.text(self.right - 2, y - 5 if y > self.top + 16 else y + 14, label, "limit-label", "end")

    def _apart(self, scale: Scale) -> Sequence[float]:
        """Ticks whose numbers do not touch: all of them, or every second, third, …"""
        for every in range(1, len(scale.ticks) + 1):
            ticks = scale.ticks[::every]
            ends = [(self.x(tick), text_width(scale.label(tick), _TICK_SIZE) / 2) for tick in ticks]
            if all(
                right - half_right - left - half_left >= 6 for (left, half_left), (right, half_right) in pairwise(ends)
            ):
                return ticks
        return scale.ticks[:1]


def x_scale_of(values: Sequence[float], log: bool) -> Scale:
    """A scale from the smallest value to the largest."""
    return logarithmic(values) if log else linear(values, from_zero=False, tight=True)


def y_scale_of(values: Sequence[float], log: bool) -> Scale:
    """A scale from 0, or from the power of ten below the smallest value."""
    return logarithmic(values) if log else linear(values)


def with_unit(title: str, unit: str) -> str:
    """ "time (ms)"."""
    return f"{title} ({unit})" if unit else title
