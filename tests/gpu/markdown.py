"""The tables of docs/gpu/ from the JSON of scripts/on-gpu."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def page(document: dict[str, Any]) -> str:
    """Everything of a run that is worth a table; what was not run is named with its reason."""
    steps = document["steps"]
    parts = ["# Run on a GPU", _head(document), _steps(steps)]
    kernels = steps.get("kernels", {}).get("result", {})
    if "rows" in (times := kernels.get("times", {})):
        parts += ["## Times of the kernels", _conditions(times), *_tables(times)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(document: dict[str, Any]) -> str:
    machine = document["steps"].get("machine", {}).get("result")
    said = f"Started {document['started']}, edgekit {document['edgekit']}."
    if machine:
        gpu = machine["gpu"]
        said += (
            f" Compute capability {gpu['compute_capability']}, {gpu['total_bytes'] / 2**30:.1f} GiB; CUDA runtime"
            f" {machine['cuda_runtime']}, driver for CUDA {machine['cuda_driver']}; Python {machine['python']}."
        )
    return said


def _steps(steps: dict[str, Any]) -> str:
    rows = []
    for name, step in steps.items():
        words = step.get("reason", "")
        tests = step.get("result", {}).get("tests") if name == "kernels" else step.get("result")
        if isinstance(tests, dict) and "skipped" in tests:
            passed = tests["run"] - len(tests["failed"]) - len(tests["skipped"])
            counts = f"{passed} tests passed, {len(tests['failed'])} failed, {len(tests['skipped'])} skipped"
            words = f"{counts}; {words}" if words else counts
        rows.append([name, step["status"], f"{step['seconds']:.0f}", words])
    return _table(["step", "status", "seconds", ""], rows)


def _conditions(times: dict[str, Any]) -> str:
    gpu, told = times["before"]["gpu"], times.get("telemetry", {})
    name = f"{gpu['name']}, driver {gpu['driver']}" if gpu else "GPU not named by nvidia-smi"
    copied = times["copy"]
    text = (
        f"{name}, torch {times['torch']}. A copy of {copied['bytes_copied'] / 2**30:.0f} GiB within the GPU's memory:"
        f" {copied['bytes_per_s'] / 1e9:,.0f} GB/s, read and written."
    )
    looks = [(when, times.get(when, {}).get("reading", {})) for when in ("before", "after")]
    for when, look in looks:
        if look.get("gpu_clock_hz"):
            text += f" {when.capitalize()}: {look['gpu_clock_hz'] / 1e6:,.0f} MHz, {look['temperature_c']:.0f} °C."
    if told.get("mean_power_w"):
        text += f" Meanwhile {told['mean_power_w']:.0f} W on average, {told['mean_gpu_clock_hz'] / 1e6:,.0f} MHz."
    return text + (
        " Times are of the GPU alone, per call in a replayed CUDA graph over rotating operands, median; GB/s counts the"
        " least bytes that a call has to move; the share is of the copy's rate."
    )


def _tables(times: dict[str, Any]) -> Iterable[str]:
    for stem, title, sizes in (
        ("tpa_attention", "edgekit::TPAAttention", ("batch", "new", "context", "dtype")),
        ("tt_sparse_linear", "edgekit::TTSparseLinear", ("tokens", "rank", "entries")),
        ("tpa_append", "edgekit::TPAAppend", ("batch", "new", "context")),
    ):
        rows = [row for row in times["rows"] if row["operator"] == stem]
        if rows:
            yield f"### {title}"
            head = ["", *sizes, "µs (p10 to p90)", "MB", "GB/s", "of copy", "torch, µs", "torch / edgekit", "error"]
            yield _table(head, [_cells(row, sizes) for row in rows])
            names = sorted({each["name"] for row in rows for each in row.get("baselines", [])})
            yield "torch: " + "; ".join(names) + "."
    if times.get("not_run"):
        yield f"{len(times['not_run'])} rows were not run for want of time."


def _cells(row: dict[str, Any], sizes: tuple[str, ...]) -> list[str]:
    cells = [row["name"], *(f"{row['shape'][name]}" for name in sizes)]
    if "failure" in row:  # a wrong answer has no speed, even where it was timed
        return [*cells, row["failure"], *[""] * 6]
    taken, (torch, *_) = row["seconds"], row["baselines"]
    return [
        *cells,
        f"{taken['median'] * 1e6:.1f} ({taken['p10'] * 1e6:.1f} to {taken['p90'] * 1e6:.1f})",
        f"{row['bytes_moved'] / 1e6:.2f}",
        f"{row['bytes_per_s'] / 1e9:,.0f}",
        f"{row['of_copy_bandwidth']:.0%}",
        f"{torch['seconds']['median'] * 1e6:.1f}",
        f"{torch['times_faster']:.2f}",
        f"{row['error']:.1e}",
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    ruler = ["---"] + ["---:"] * (len(head) - 1)
    lines = ([cell.replace("|", "/") for cell in cells] for cells in (head, ruler, *rows))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
