"""How well the bundle predicts a text, beside what it is compared with."""

from __future__ import annotations

from typing import Any

from edgekit.report.blocks import Block, Facts, Figure, Note, Section, Text, Tile
from edgekit.report.numbers import change, plain
from edgekit.report.shape import NUMBER
from edgekit.report.source import Source
from edgekit.report.svg import Bar, Bars
from edgekit.words import counted

ORDER = 20
TITLE = "Perplexity"
INTRO = "How well it predicts a text, token by token: lower is better, and only equal texts compare."
_PERPLEXITY = {"perplexity": float, "standard_error": NUMBER, "bits_per_byte": float}
SHAPE = {
    "text": {"name": str, "sha256": str, "bytes": int, "tokens": int},
    "context": int,
    "stride": int,
    "windows": int,
    "tokens": int,
    "nats": float,
    **_PERPLEXITY,
    "reference": ({"name": str, **_PERPLEXITY, "ratio": float, "ratio_standard_error": NUMBER}, None),
}
#: Rest of the command line that measures.
HOW = "--text FILE --against CHECKPOINT"


def section(source: Source) -> Section:
    """The figure with its error, the comparison where there is one, and the text."""
    found = source.document("eval", SHAPE)
    if found is None:
        note = source.missing("Perplexity", "eval", HOW)
        return Section(
            "perplexity",
            TITLE,
            (note,),
            INTRO,
            "missing",
            (Tile("Perplexity", "not measured", "edgekit eval", "quiet"),),
        )
    current = source.state("eval") == "ok"
    blocks: tuple[Block, ...] = (*source.stale("eval", HOW), *_comparison(found), _facts(found, source))
    tile = _tile(found) if current else Tile("Perplexity", "stale", plain(found["perplexity"], 4), "warn")
    return Section("perplexity", TITLE, blocks, INTRO, "ok" if current else "stale", (tile,), source.data("eval"))


def _tile(found: dict[str, Any]) -> Tile:
    reference = found["reference"]
    note = found["text"]["name"] if reference is None else f"{_change(reference)} beside the reference"
    return Tile("Perplexity", plain(found["perplexity"], 4), note)


def _comparison(found: dict[str, Any]) -> tuple[Block, ...]:
    reference = found["reference"]
    if reference is None:
        return (Note("There is nothing to compare it with: measure with --against CHECKPOINT or --baseline BUNDLE."),)
    bars = (_bar("this bundle", found, True), _bar(reference["name"], reference, False))
    caption = (
        "Whiskers: one standard error, from the spread between windows. The same windows were given to both, so the "
        f"change is known better than either: {_change(reference)}."
    )
    return (Figure(Bars("Perplexity", "", bars, digits=4), caption),)


def _bar(label: str, values: dict[str, Any], emphasis: bool) -> Bar:
    middle, error = values["perplexity"], values["standard_error"]
    if error is None:
        return Bar(label, middle, emphasis=emphasis)
    return Bar(label, middle, middle - error, middle + error, emphasis)


def _change(reference: dict[str, Any]) -> str:
    error = reference["ratio_standard_error"]
    spread = "" if error is None else f" ± {error * 100:.2f}"
    return change(reference["ratio"]).replace("\N{NO-BREAK SPACE}%", f"{spread}\N{NO-BREAK SPACE}%")


def _facts(found: dict[str, Any], source: Source) -> Facts:
    text, error = found["text"], found["standard_error"]
    spread = "" if error is None else f" ± {plain(error)}"
    rows: list[tuple[str, Text]] = [
        ("perplexity", f"{plain(found['perplexity'], 4)}{spread}"),
        ("bits per byte", f"{found['bits_per_byte']:.5f}"),
        ("nats per token", f"{found['nats'] / found['tokens']:.5f}"),
        ("text", f"{text['name']}, {text['bytes']:,} bytes, {text['tokens']:,} tokens, SHA-256 {text['sha256'][:12]}…"),
        ("windows", f"{found['windows']:,} of {found['context']:,} tokens, stride {found['stride']:,}"),
        ("predicted", counted(found["tokens"], "tokens")),
    ]
    if when := source.when("eval"):
        rows.append(("measured", when))
    return Facts(tuple(rows))
