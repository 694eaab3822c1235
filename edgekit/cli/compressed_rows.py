"""The table of compressed matrices in `edgekit inspect`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.checkpoint.compressed import CompressedCheckpoint

HEADER = ("matrix", "method", "shape", "form", "codes", "ranks", "non-zeros", "bits", "bytes", "error", "us", "int4 us")


def product_times(checkpoint: CompressedCheckpoint) -> dict[str, tuple[float, float]] | None:
    """Of one token with each matrix, and with plain int4, by the cost model of a CPU; None without torch."""
    if find_spec("torch") is None:
        return None
    from edgekit.compress.saten.cost import int4_seconds, seconds

    times = {}
    for name, record in checkpoint.records.items():
        rows, columns = record["shape"]
        times[name] = (seconds(checkpoint.matrix(name)), int4_seconds(rows, columns))
    return times


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
                _microseconds(each["product_s"]),
                _microseconds(each["int4_product_s"]),
            )
        )
    return rows


def compressed_lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What the table comes to, as label and value."""
    more, fitted = len(summary["reads_more_than_int4"]), summary["fitted"]
    size = f"{summary['bytes'] / 1e6:,.1f} MB, {summary['bits_per_weight'] or 0:.3f} bits per weight"
    lines = [("compressed", f"{fitted} matrices, {size}; as int4 {summary['int4_bytes'] / 1e6:,.1f} MB")]
    if more:
        lines.append(("reads more", f"{more} of {fitted} matrices have more bytes than int4"))
    if summary["slower_than_int4"] is not None:
        own, int4 = _microseconds(summary["product_s"]), _microseconds(summary["int4_product_s"])
        slower = f"{len(summary['slower_than_int4'])} of {fitted} matrices"
        lines.append(
            ("slower than int4", f"{slower}; {own} us per token for all, int4 {int4} (model of one CPU thread)")
        )
    return lines


def _microseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e6 * seconds:,.1f}"


def _ranks(each: dict[str, Any]) -> str:
    if not each["ranks"]:
        return "-"
    order = "" if len(each["modes"]) == 2 else f" of {'x'.join(map(str, each['modes']))}"
    return f"{','.join(map(str, each['ranks']))} {each['factors']}{order}"
