"""What each token of context costs in memory, beside other attentions."""

from __future__ import annotations

from typing import Any

from edgekit.report.blocks import Facts, Figure, Section, Tile
from edgekit.report.numbers import plain, quantity
from edgekit.report.source import Source
from edgekit.report.svg import Bar, Bars, Lines, Plot, Point, Series

ORDER = 60
TITLE = "Cache"
INTRO = "What the model remembers of each token of its context."
_POINTS = 9


def section(source: Source) -> Section:
    """Bytes per token beside MHA, GQA and MQA of the same sizes, and what a context takes."""
    cache = source.bundle.manifest.cache
    others = others_of(source.bundle.manifest.raw)
    own = cache.bytes_per_token
    full = own * cache.capacity_limit
    blocks: list[Any] = [
        Facts(
            (
                ("kind", "in place, shared" if cache.kind == "shared" else "grows by concatenation"),
                ("element type", cache.dtype),
                ("bytes per token", f"{own:,}"),
                ("context", f"at most {cache.capacity_limit:,} tokens, which take {quantity(full, 'B')}"),
            )
        )
    ]
    bars = (Bar("this model", own, emphasis=True), *(Bar(name, size) for name, size in others.items()))
    if own:
        blocks.append(Figure(Bars("Bytes per token", "B", bars), _caption(own, others), numbers=False))
        blocks.append(Figure(_growth(own, others, cache.capacity_limit)))
    tile = Tile("Cache per token", quantity(own, "B"), f"{quantity(full, 'B')} at {cache.capacity_limit:,} tokens")
    data = {
        "bytes_per_token": own,
        "bytes_per_token_of": others,
        "dtype": cache.dtype,
        "capacity_limit": cache.capacity_limit,
    }
    return Section("cache", TITLE, tuple(blocks), INTRO, tiles=(tile,), data=data)


def others_of(manifest: Any) -> dict[str, int]:
    """Bytes per token of other attentions of the same sizes, where the manifest tells them."""
    found = manifest["cache"].get("bytes_per_token_of")
    if not isinstance(found, dict):
        return {}
    return {str(name): size for name, size in found.items() if isinstance(size, int) and size > 0}


def _caption(own: int, others: dict[str, int]) -> str:
    shares = [f"{plain(own / size)} of {name}" for name, size in others.items()]
    return f"This model keeps {', '.join(shares)}, in heads of the same size." if shares else ""


def _growth(own: int, others: dict[str, int], limit: int) -> Plot:
    def line(label: str, size: int) -> Series:
        lengths = sorted({round(limit * step / (_POINTS - 1)) for step in range(_POINTS)})
        return Series(label, tuple(Point(length, length * size) for length in lengths))

    series = (line("this model", own), *(line(name, size) for name, size in others.items() if size != own))
    return Lines("Memory of the cache for one sequence", "tokens of context", "memory", series, y_unit="B")
