"""The table of compressed matrices in `edgekit inspect`."""

from __future__ import annotations

from typing import Any

HEADER = ("matrix", "method", "shape", "form", "codes", "ranks", "non-zeros", "bits", "bytes", "error", "reads")


def compressed_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """A header and a row per matrix; "error" is the relative one where activations weigh."""
    rows: list[tuple[str, ...]] = [HEADER]
    for each in summary["matrices"]:
        rows.append(
            (
                each["matrix"].removesuffix(".weight"),
                each["method"],
                "x".join(map(str, each["shape"])),
                each["form"],
                f"{each['base_bits']}/{each['base_block']}" if each["base_bits"] else "-",
                _ranks(each),
                f"{each['nonzeros']:,} {each['values']}" if each["nonzeros"] else "-",
                f"{each['bits_per_weight']:.2f}",
                f"{each['bytes']:,}",
                f"{each['weighted_error']:.4f}",
                "more than int4" if each["slower_than_int4"] else "-",
            )
        )
    return rows


def compressed_lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What the table comes to, as label and value."""
    slower, fitted = len(summary["slower_than_int4"]), summary["fitted"]
    more = summary["operators_more_than_int4"]
    lines = [
        (
            "compressed",
            f"{fitted} matrices, {summary['bytes'] / 1e6:,.1f} MB, {summary['bits_per_weight'] or 0:.3f} bits per "
            f"weight; as int4 {summary['int4_bytes'] / 1e6:,.1f} MB",
        )
    ]
    if slower:
        lines.append(("slower than int4", f"{slower} of {fitted} matrices where memory is the limit: they read more"))
    if more:
        lines.append(("operators", f"{more} more than int4 has: with few bytes saved, each costs more than it gains"))
    return lines


def _ranks(each: dict[str, Any]) -> str:
    if not each["ranks"]:
        return "-"
    order = "" if len(each["modes"]) == 2 else f" of {'x'.join(map(str, each['modes']))}"
    return f"{','.join(map(str, each['ranks']))} {each['factors']}{order}"
