"""The results as a table and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .ggml import FLAT, IMATRIX, PREFIX

Entry = dict[str, Any]
ORIGINAL = "original"


def ordered(results: Sequence[Entry], methods: Sequence[str]) -> list[Entry]:
    """The original, then by the bits that were asked for (or those there are, where none were), then as `methods`."""

    def place(entry: Entry) -> tuple[bool, float, int, str]:
        method = entry["method"]
        known = methods.index(method) if method in methods else len(methods)
        asked = entry.get("asked")
        return method != ORIGINAL, -float(entry["bits"] if asked is None else asked), known, method

    return sorted(results, key=place)


def table(results: Sequence[Entry], columns: Sequence[str], methods: Sequence[str]) -> str:
    """In Markdown; with columns of healed values where there are any."""
    healed = [f"{name} healed" for name in columns if any("healed" in entry for entry in results)]
    heads = ["method", "bits asked", "bits", *(name.replace("_", " ") for name in [*columns, *healed])]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for entry in ordered(results, methods):
        asked = "" if entry.get("asked") is None else f"{entry['asked']:g}"
        bits = "" if "failure" in entry else f"{entry['bits']:.2f}"
        cells = [f"`{entry['method']}`", asked, bits, *_values(entry, columns)]
        if healed:
            after = entry.get("healed", {})
            cells += ["-"] * len(columns) if "failure" in after else _values(after, columns)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _values(entry: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    if "failure" in entry:
        return [str(entry["failure"]).replace("|", "/").replace("\n", " "), *[""] * (len(columns) - 1)]
    return [f"{entry[name]:.4g}" if name in entry else "" for name in columns]


def draw(results: Sequence[Entry], drawn: Mapping[str, Any], methods: Sequence[str], target: Path) -> None:
    """A panel for each of a judge's `drawn`: a line for each method, dashed where healed, llama.cpp's as points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(1 + 6.5 * len(drawn), 5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, (label, shown)) in zip(
        figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True
    ):
        _panel(axes, [entry for entry in results if name in entry], name, shown, methods)
        axes.set_xlabel("bits per weight of the matrices, everything counted")
        axes.set_ylabel(label)
        axes.set_yscale("log")
        for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            ticks(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.7)))
        axes.grid(alpha=0.3, which="both")
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside right center", fontsize="small")
    figure.savefig(target, dpi=110, metadata={"Software": None})


def _panel(axes: Any, results: Sequence[Entry], name: str, shown: Any, methods: Sequence[str]) -> None:
    for entry in results:
        if entry["method"] == ORIGINAL and (level := shown(entry[name])) > 0:
            axes.axhline(level, color="black", linewidth=0.8, linestyle=":")
    lines = [method for method in methods if not method.startswith(PREFIX)]
    for number, method in enumerate(lines):
        own = sorted((e for e in results if e["method"] == method), key=lambda e: e["bits"])
        style: dict[str, Any] = {"color": f"C{number % 10}", "marker": "o", "markersize": 3}
        if own:
            axes.plot([e["bits"] for e in own], [shown(e[name]) for e in own], label=method, **style)
        if healed := [e for e in own if name in e.get("healed", {})]:
            points = [shown(e["healed"][name]) for e in healed]
            axes.plot([e["bits"] for e in healed], points, label=f"{method}, healed", linestyle="--", **style)
    points = sorted((e for e in results if e["method"].startswith(PREFIX)), key=lambda e: (e["bits"], shown(e[name])))
    for number, entry in enumerate(points):
        short, at = entry["method"].removeprefix(PREFIX), (entry["bits"], shown(entry[name]))
        style = {"marker": "s" if IMATRIX in short else "D", "markerfacecolor": "none" if FLAT in short else "black"}
        axes.plot(*at, linestyle="", color="black", markersize=5, **style)
        # Neighbours' names on either side.
        right = number % 2 == 0
        axes.annotate(
            short, at, (6 if right else -6, 4), textcoords="offset points", fontsize=7, ha="left" if right else "right"
        )
