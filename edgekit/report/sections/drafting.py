"""What drafting won where it was measured, and from how many tokens a step on a block pays."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from edgekit.report.blocks import Block, Cell, Figure, Note, Section, State, Table, Text, Tile
from edgekit.report.numbers import count, percent, plain, quantity
from edgekit.report.shape import NUMBER, SAMPLES, require_shape
from edgekit.report.source import Source
from edgekit.report.speed import SHAPE as BENCH
from edgekit.report.svg import Lines, Point, Series, quartiles
from edgekit.runtime.drafting.expected import expected_tokens

ORDER = 45
TITLE = "Several tokens a step"
_SOURCE = {"acceptance_by_position": [NUMBER], "drafted": int, "accepted": int}
_DRAFT = {
    "answer_tokens": int,
    "groups": [
        {
            "group": str,
            "answers": int,
            "identical": int,
            "plain_tokens_per_s": SAMPLES,
            "drafted_tokens_per_s": SAMPLES,
            "speed_up": SAMPLES,
            "draft": {"tokens_per_step": NUMBER, "sources": {}, "off": (str, None)},
        }
    ],
    "blocks": [{"positions": int, "depth": int, "step_s": SAMPLES, "ratio": float}],
}


def section(source: Source) -> Section | None:
    """Speed with and without drafts, acceptance, and the break-even; nothing for a bundle that neither has draft heads
    nor was measured with drafts.
    """
    found = source.document("bench", BENCH)
    if found is None or found.get("draft") is None:
        if source.bundle.manifest.draft is None:
            return None
        note = source.missing("Drafting", "bench", "--draft auto")
        return Section("drafting", TITLE, (note,), state="missing")
    draft = source.document("bench", {"draft": _DRAFT})
    assert draft is not None
    found = draft["draft"]
    blocks: list[Block] = [*source.stale("bench", "--draft auto"), _groups(found), *_differences(found)]
    blocks += [_break_even(found), _acceptance(found)]
    state: State = "ok" if source.state("bench") == "ok" else "stale"
    intro = (
        f"Conversations, answered with drafts and without in turns, at most {found['answer_tokens']} tokens an answer. "
        "Greedy answers were compared token by token before speeds were told."
    )
    return Section("drafting", TITLE, tuple(blocks), intro, state, _tiles(found, state), found)


def _groups(found: dict[str, Any]) -> Table:
    rows: list[tuple[Text, ...]] = []
    for group in found["groups"]:
        first, middle, third = quartiles(group["speed_up"]["samples"])
        per_step = group["draft"]["tokens_per_step"]
        speed = Cell(f"{plain(middle)} ×", note=f"{plain(first)} to {plain(third)}")
        rates = [quantity(group[f"{way}_tokens_per_s"]["median"], "tokens/s") for way in ("plain", "drafted")]
        rows.append(
            (group["group"], f"{group['answers']}", *rates, speed, "–" if per_step is None else plain(per_step))
        )
    head = ("", "answers", "plain", "drafted", "speed-up", "tokens a step")
    return Table("Medians over answers; of the speed-up the quartiles", head, tuple(rows), (1, 2, 3, 4, 5))


def _differences(found: dict[str, Any]) -> list[Block]:
    notes: list[Block] = []
    different = sum(group["answers"] - group["identical"] for group in found["groups"])
    if different:
        text = (
            f"{count(different, 'answer differs', 'answers differ')} from plain decoding's, from a token on that the "
            "engine's rounding decides: kernels for one token and for several round differently. Neither is more right."
        )
        notes.append(Note(text))
    for group in found["groups"]:
        if group["draft"]["off"]:
            notes.append(Note(f"{group['group']}: drafting was off at the end: {group['draft']['off']}."))
    return notes


def _break_even(found: dict[str, Any]) -> Figure:
    """The cost of a block in plain steps, and the tokens that it gives by each source's acceptance."""
    cost = Series("cost, in plain steps", tuple(_cost_point(row, found["blocks"][0]) for row in found["blocks"]))
    gains = [
        Series(f"{group['group']}, {name}: tokens", _expected(source["acceptance_by_position"]))
        for group in found["groups"]
        for name, source in _sources(group)
    ]
    plot = Lines("Break-even of drafting", "positions verified at once", "steps, tokens", (cost, *gains))
    caption = (
        f"With {found['blocks'][0]['depth']} tokens in the cache. A draft pays where it gives more tokens than its "
        "block costs; what drafting itself takes comes on top. Copies (ngram) can be drafted at some steps only."
    )
    return Figure(plot, caption)


def _cost_point(row: dict[str, Any], one: dict[str, Any]) -> Point:
    base, (low, _, high) = one["step_s"]["median"], quartiles(row["step_s"]["samples"])
    return Point(row["positions"], row["ratio"], low / base, high / base)


def _expected(chances: Sequence[float | None]) -> tuple[Point, ...]:
    """Tokens of a step by positions verified, as far as chances are known."""
    known = [chance for chance in takewhile(lambda each: each is not None, chances) if chance is not None]
    return tuple(Point(positions, tokens) for positions, tokens in enumerate(expected_tokens(known), 1))


def _acceptance(found: dict[str, Any]) -> Table:
    rows: list[tuple[Text, ...]] = []
    longest = 0
    for group in found["groups"]:
        for name, source in _sources(group):
            chances = source["acceptance_by_position"]
            longest = max(longest, len(chances))
            shown = ["–" if chance is None else percent(chance, 2) for chance in chances]
            rows.append((f"{group['group']}, {name}", f"{source['drafted']:,}", f"{source['accepted']:,}", *shown))
    filled = tuple((*row, *[""] * (longest + 3 - len(row))) for row in rows)
    head = ("", "drafted", "accepted", *(f"{place}." for place in range(1, longest + 1)))
    return Table(
        "Tokens drafted and accepted; by position, of those whose predecessors were accepted",
        head,
        filled,
        tuple(range(1, longest + 3)),
    )


def _sources(group: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    for name, source in group["draft"]["sources"].items():
        require_shape(source, _SOURCE, f"bench.json: draft, {group['group']}, {name}", "measure again: edgekit bench")
    return list(group["draft"]["sources"].items())


def _tiles(found: dict[str, Any], state: State) -> tuple[Tile, ...]:
    if state != "ok" or not found["groups"]:
        return ()
    ratios = [ratio for group in found["groups"] for ratio in group["speed_up"]["samples"]]
    value = f"{plain(statistics.median(ratios))}\N{NO-BREAK SPACE}×"
    names = ", ".join(group["group"] for group in found["groups"])
    return (Tile("Drafting", value, f"plain decoding's speed, median of {count(len(ratios), 'answer')} ({names})"),)
