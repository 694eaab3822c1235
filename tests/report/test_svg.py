"""Plots: marks where their numbers say, and labels that neither touch nor leave the drawing."""

from __future__ import annotations

import random
import re
import statistics
from itertools import combinations

import numpy as np
import pytest

from edgekit.report.canvas import text_width
from edgekit.report.scatter import Scatter, Spot
from edgekit.report.svg import Bar, Bars, Lines, Plot, Point, Series, Stack, Strips, quartiles
from tests.report.reading import Element, parsed, text

DRAW = random.Random(3)
LONG = "a label that is much longer than anything that a drawing of this width has room for, really"
PLOTS: dict[str, Plot] = {
    "bars": Bars("Cache", "B", (Bar("this", 46_080, emphasis=True), Bar(LONG, 138_240, 1e5, 1.5e5), Bar("none", 0))),
    "stack": Stack("Size", "B", (("embedding", 28e6), (LONG, 30e6), ("tiny", 40.0), ("MLP", 80e6))),
    "lines": Lines(
        "Error",
        "layer",
        "relative error",
        (
            Series("hidden state", tuple(Point(i, 1e-7 * (i + 1)) for i in range(31))),
            Series(LONG, tuple(Point(i, 3e-7 * (i + 1), 1e-7 * (i + 1), 5e-7 * (i + 1)) for i in range(31))),
        ),
        limit=(1e-4, "tolerance 0.0001"),
        log_y=True,
    ),
    "linear lines": Lines(
        "Memory", "tokens", "memory", (Series("own", tuple(Point(i * 1024, i * 47e6) for i in range(9))),), y_unit="B"
    ),
    "scatter": Scatter(
        "Size and quality",
        "size",
        "perplexity",
        (Spot("one", 109e6, 24.98, 24.0, 25.9), Spot(LONG, 160e6, 24.99, 24.1, 25.9, beaten=True), Spot("c", 5e8, 20)),
        x_unit="B",
    ),
    "strips": Strips(
        "Steps",
        "s",
        "time",
        (("depth 128", tuple(DRAW.gauss(0.03, 0.004) for _ in range(160))), (LONG, (0.041,)), ("two", (0.01, 0.05))),
    ),
}


def drawn(plot: Plot, width: int) -> Element:
    return parsed(f"<div>{plot.svg(width, 'x')}</div>")[0]


def number(element: Element, name: str) -> float:
    return float(element.attrib[name])


def boxes(svg: Element) -> list[tuple[str, float, float, float, float]]:
    """Of each text: left, right, top, bottom, as wide as the widest usual font makes it."""
    found = []
    for element in svg.iter("text"):
        size = 11.0 if element.attrib["class"] in ("tick", "limit-label") else 12.0
        width, x, y = text_width(text(element), size), number(element, "x"), number(element, "y")
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[element.attrib["text-anchor"]]
        found.append((text(element), left, left + width, y - size * 0.75, y + size * 0.2))
    return found


@pytest.mark.parametrize("width", [320, 840])
@pytest.mark.parametrize("name", PLOTS)
def test_labels_neither_overlap_nor_leave_the_drawing(name: str, width: int) -> None:
    svg = drawn(PLOTS[name], width)
    assert svg.attrib["viewBox"] == f"0 0 {width} {svg.attrib['height']}"
    found = boxes(svg)
    assert found
    for label, left, right, top, bottom in found:
        assert left >= -1, label
        assert right <= width + 1, label
        assert top >= -1, label
        assert bottom <= number(svg, "height") + 1, label
    for (one, l1, r1, t1, b1), (other, l2, r2, t2, b2) in combinations(found, 2):
        assert r1 <= l2 or r2 <= l1 or b1 <= t2 or b2 <= t1, (one, other)


@pytest.mark.parametrize("name", PLOTS)
def test_every_drawing_says_what_it_shows(name: str) -> None:
    svg = drawn(PLOTS[name], 320)
    assert svg.attrib["role"] == "img"
    named = {element.get("id"): text(element) for element in svg if element.get("id")}
    title, description = (named[each] for each in svg.attrib["aria-labelledby"].split())
    assert title == PLOTS[name].title
    assert len(description) > 10
    head, rows = PLOTS[name].table()
    assert rows
    assert all(len(row) == len(head) for row in rows)


@pytest.mark.parametrize("width", [320, 840])
def test_bars_are_as_long_as_their_values(width: int) -> None:
    bars = Bars("x", "B", (Bar("a", 100), Bar("b", 50), Bar("c", 25)))
    lengths = [number(rect, "width") for rect in drawn(bars, width).iter("rect")]
    assert lengths[0] > width * 0.4
    assert [length / lengths[0] for length in lengths] == pytest.approx([1, 0.5, 0.25], abs=1e-3)


def test_a_whisker_spans_its_range() -> None:
    svg = drawn(Bars("x", "", (Bar("a", 10, 8, 12),)), 840)
    (rect,) = svg.iter("rect")
    whisker = next(iter(svg.iter("line")))
    scale = number(rect, "width") / 10
    start = number(rect, "x")
    assert number(whisker, "x1") == pytest.approx(start + 8 * scale, abs=0.1)
    assert number(whisker, "x2") == pytest.approx(start + 12 * scale, abs=0.1)


def test_parts_of_a_stack_have_their_shares() -> None:
    parts = (("a", 10.0), ("b", 30.0), ("c", 60.0))
    rects = [rect for rect in drawn(Stack("x", "B", parts), 500).iter("rect") if number(rect, "height") > 20]
    assert [number(rect, "x") for rect in rects] == pytest.approx([0, 50, 200])
    assert [number(rect, "width") for rect in rects] == pytest.approx([48.5, 148.5, 298.5])
    assert Stack("x", "B", parts).table()[1][2] == ("c", "60\N{NO-BREAK SPACE}B", "60.0\N{NO-BREAK SPACE}%")


def test_points_of_a_line_lie_where_their_numbers_say() -> None:
    plot = Lines("x", "n", "t", (Series("s", (Point(0, 0), Point(5, 50), Point(10, 100))),))
    svg = drawn(plot, 600)
    dots = [(number(dot, "cx"), number(dot, "cy")) for dot in svg.iter("circle")]
    ticks = {text(e): (number(e, "x"), number(e, "y")) for e in svg.iter("text") if e.attrib["class"] == "tick"}
    assert dots[0][0] == pytest.approx(next(number(e, "x1") for e in svg.iter("line")), abs=0.1)
    assert dots[2][0] == pytest.approx(ticks["10"][0], abs=0.1)
    assert dots[2][1] == pytest.approx(ticks["100"][1] - 4, abs=0.1)
    assert dots[1][0] == pytest.approx((dots[0][0] + dots[2][0]) / 2, abs=0.1)
    assert dots[1][1] == pytest.approx((dots[0][1] + dots[2][1]) / 2, abs=0.1)


def test_a_logarithmic_axis_and_its_limit() -> None:
    plot = Lines("x", "n", "t", (Series("s", (Point(0, 1e-6), Point(1, 1e-4))),), limit=(1e-5, "most"), log_y=True)
    svg = drawn(plot, 600)
    low, high = (number(dot, "cy") for dot in svg.iter("circle"))
    (limit,) = (line for line in svg.iter("line") if line.attrib["class"] == "limit")
    assert number(limit, "y1") == number(limit, "y2") == pytest.approx((low + high) / 2, abs=0.1)


def test_a_strip_shows_every_sample_and_the_middle_half() -> None:
    values = [DRAW.uniform(0.01, 0.09) for _ in range(41)]
    svg = drawn(Strips("x", "s", "time", (("a", tuple(values)),), from_zero=True), 800)
    ticks = {text(e): number(e, "x") for e in svg.iter("text") if e.attrib["class"] == "tick"}
    (zero, first), (_, last) = (ticks["0"], 0.0), next((x, float(label)) for label, x in reversed(ticks.items()))
    assert first == 0
    right = ticks[f"{last:g}"]
    places = [zero + value * 1000 / last * (right - zero) for value in values]
    assert [number(dot, "cx") for dot in svg.iter("circle")] == pytest.approx(places, abs=0.1)
    (box,) = svg.iter("rect")
    q1, q2, q3 = np.percentile(places, [25, 50, 75])
    assert (number(box, "x"), number(box, "x") + number(box, "width")) == pytest.approx((q1, q3), abs=0.1)
    (median,) = (line for line in svg.iter("line") if line.attrib["class"] == "median")
    assert number(median, "x1") == pytest.approx(q2, abs=0.1)
    assert f"median {statistics.median(values) * 1000:.1f}" in text(svg)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 100])
def test_quartiles_are_those_of_numpy(count: int) -> None:
    values = [DRAW.random() for _ in range(count)]
    assert quartiles(values) == pytest.approx(tuple(np.percentile(values, [25, 50, 75])))


def test_labels_are_text_and_nothing_else() -> None:
    hostile = '"><script>alert(1)</script>&<b'
    for plot in (
        Bars(hostile, "", (Bar(hostile, 1),)),
        Stack(hostile, "B", ((hostile, 1),)),
        Lines(hostile, hostile, hostile, (Series(hostile, (Point(0, 1),)), Series("b", (Point(0, 1),)))),
        Strips(hostile, "", hostile, ((hostile, (1.0,)),)),
    ):
        svg = drawn(plot, 840)
        assert {element.tag for element in svg.iter()} <= {
            "svg", "title", "desc", "rect", "line", "circle", "path", "text",
        }  # fmt: skip
        assert hostile in [text(element) for element in svg.iter("title")]
        assert not [name for element in svg.iter() for name in element.attrib if re.match("on|href|style", name)]


def test_spots_lie_where_their_numbers_say_and_the_beaten_are_crosses() -> None:
    spots = (Spot("a", 0, 10, 9, 11), Spot("b", 50, 30, beaten=True), Spot("c", 100, 20))
    svg = drawn(Scatter("x", "n", "t", spots), 600)
    left, right = [(number(dot, "cx"), number(dot, "cy")) for dot in svg.iter("circle")]
    (one, other) = (line for line in svg.iter("line") if "s2" in line.attrib["class"])
    centre = [(number(one, f"{axis}1") + number(one, f"{axis}2")) / 2 for axis in "xy"]
    assert centre == pytest.approx([(number(other, f"{axis}1") + number(other, f"{axis}2")) / 2 for axis in "xy"])
    assert centre[0] == pytest.approx((left[0] + right[0]) / 2, abs=0.1)
    assert right[1] == pytest.approx((left[1] + centre[1]) / 2, abs=0.1)
    (whisker,) = (line for line in svg.iter("line") if line.attrib["class"] == "median")
    per_unit = (left[1] - right[1]) / 10
    assert sorted([number(whisker, "y1"), number(whisker, "y2")]) == pytest.approx(
        [left[1] - per_unit, left[1] + per_unit], abs=0.1
    )


@pytest.mark.parametrize(("more", "expected"), [(False, "ac"), (True, "abd")])
def test_a_front_joins_what_no_other_spot_beats(more: bool, expected: str) -> None:
    spots = (Spot("d", 4, 9), Spot("b", 2, 8), Spot("a", 1, 7), Spot("c", 3, 6), Spot("e", 4, 8))
    assert "".join(spot.label for spot in Scatter("x", "n", "t", spots, more_is_better=more).front()) == expected
