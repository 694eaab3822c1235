"""The results as a table and as a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .ggml import FLAT, IMATRIX, PREFIX

Entry = dict[str, Any]
ORIGINAL = "original"
#: As tables have them: what is plain first.
METHODS = (
    "plain", "round", "gptq", "svd", "svd-aware", "tt", "saten-faithful", "saten", "dense", "saten-augmented",
)  # fmt: skip
#: What is shown of an encoder, and of a decoder's answers.
EMBEDDINGS = ("cosine_mean", "cosine_min", "spearman", "retrieval_top1", "probe_accuracy")
CHOICES = ("accuracy", "normalised")
#: Drawn columns, each with its label and what is drawn of a value.
Drawn = dict[str, tuple[str, Callable[[float], float]]]


def shown_of(names: Iterable[str]) -> tuple[tuple[str, ...], Drawn]:
    """Columns of the table, and those that are drawn, of a judge whose values have these names."""
    known = list(names)
    if EMBEDDINGS[0] in known:
        return EMBEDDINGS, {EMBEDDINGS[0]: ("1 - mean cosine (lower is better)", lambda value: 1 - value)}
    columns = [name for name in known if name.startswith("perplexity_") and not name.endswith("_error")]
    drawn: Drawn = {
        name: (f"perplexity, windows of {name.rpartition('_')[2]} (lower is better)", float) for name in columns
    }
    if CHOICES[1] in known:
        columns += CHOICES
        drawn[CHOICES[1]] = ("wrong answers, for each character (lower is better)", lambda value: 1 - value)
    return tuple(columns), drawn


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
        cells = [_head(entry), asked, bits, *_values(entry, columns)]
        if healed:
            after = entry.get("healed", {})
            cells += ["-"] * len(columns) if "failure" in after else _values(after, columns)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _values(entry: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    if "failure" in entry:
        return [str(entry["failure"]).replace("|", "/").replace("\n", " "), *[""] * (len(columns) - 1)]
    return [f"{entry[name]:.4g}" if name in entry else "" for name in columns]


def merged(several: Iterable[Sequence[Entry]]) -> list[Entry]:
    """Results of several runs: of each point the first that did not fail, and its healing from whichever run healed it.
    Points of runs that gave all matrices the same bits are others than those that did not, and marked `uniform`."""
    found: dict[tuple[Any, ...], Entry] = {}
    for results in several:
        uniform = any(entry.get("settings", {}).get("uniform") for entry in results)
        for entry in results:
            if "failure" in entry:
                continue
            key = entry["method"], entry.get("asked"), uniform and entry["method"] != ORIGINAL
            kept = found.setdefault(key, {**entry, "uniform": True} if key[2] else dict(entry))
            if "failure" in kept.get("healed", {"failure": ""}) and "healed" in entry:
                kept["healed"] = entry["healed"]
    return list(found.values())


def by_size(results: Sequence[Entry], name: str, methods: Sequence[str]) -> str:
    """One value in Markdown: a row for each method, and for it healed, a column for each size that was asked for.
    Perplexities are given as multiples of the original's."""
    whole = next((entry[name] for entry in results if entry["method"] == ORIGINAL), 1.0)
    relative = whole if name.startswith("perplexity") else 1.0
    own = [entry for entry in ordered(results, methods) if entry.get("asked") is not None]
    sizes = sorted({entry["asked"] for entry in own}, reverse=True)
    lines = [f"| {' | '.join(['method', *(f'{size:g} bits' for size in sizes)])} |", f"|---|{'---:|' * len(sizes)}"]
    rows: dict[str, dict[float, Entry]] = {}
    known = {method: place for place, method in enumerate(methods)}
    for entry in sorted(own, key=lambda entry: known.get(entry["method"], len(known))):
        head = _head(entry)
        rows.setdefault(head, {})[entry["asked"]] = entry
        if name in (healed := entry.get("healed", {})):
            rows.setdefault(f"{head}, healed", {})[entry["asked"]] = healed
    for head, values in rows.items():
        cells = [_cell(values[size][name], relative) if name in values.get(size, {}) else "" for size in sizes]
        lines.append(f"| {' | '.join([head, *cells])} |")
    return "\n".join(lines) + "\n"


def _head(entry: Entry) -> str:
    return f"`{entry['method']}`" + (", uniform" if entry.get("uniform") else "")


def _cell(value: float, relative: float) -> str:
    shown = value / relative
    if shown >= 10_000:
        return "> 10,000"
    return f"{shown:,.0f}" if shown >= 100 else f"{shown:.3g}" if relative != 1 else f"{shown:.3f}"


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
    for number, (method, uniform) in enumerate((method, uniform) for method in lines for uniform in (False, True)):
        own = sorted(
            (e for e in results if e["method"] == method and e.get("uniform", False) == uniform),
            key=lambda e: e["bits"],
        )
        style: dict[str, Any] = {"color": f"C{number // 2 % 10}", "marker": "x" if uniform else "o", "markersize": 3}
        label = f"{method}, uniform" if uniform else method
        if own:
            axes.plot([e["bits"] for e in own], [shown(e[name]) for e in own], label=label, **style)
        if healed := [e for e in own if name in e.get("healed", {})]:
            points = [shown(e["healed"][name]) for e in healed]
            axes.plot([e["bits"] for e in healed], points, label=f"{label}, healed", linestyle="--", **style)
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
