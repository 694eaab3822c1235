"""A comparison as one HTML page."""

from __future__ import annotations

from datetime import datetime, timezone

from edgekit import __version__
from edgekit.compare.quality import Quality
from edgekit.compare.run import Comparison, Row
from edgekit.compare.words import FAILED, beaten_lines, head_and_rows, measured, warnings
from edgekit.evaluate.embeddings import EmbeddingMeasures
from edgekit.report.blocks import Block, Cell, Facts, Figure, Note, Page, Section, Table, Text
from edgekit.report.numbers import percent, quantity
from edgekit.report.scatter import Scatter, Spot
from edgekit.report.source import moment
from edgekit.report.svg import Strips


def page_of(found: Comparison) -> Page:
    """The table, the plot of size and quality, speed, and what all of it depends on."""
    sections = [_table(found), _quality(found), _speed(found), _bundles(found)]
    now = moment(datetime.now(timezone.utc).isoformat(timespec="seconds"))
    compared = [row for row in found.rows if not row.subject.reference_only]
    return Page(
        title=f"{len(compared)} bundle{'' if len(compared) == 1 else 's'} beside each other",
        kicker="edgekit comparison",
        subtitle=f"measured to {found.reference.label}",
        tags=tuple(row.label for row in compared),
        sections=tuple(section for section in sections if section is not None),
        footer=f"Made {now} by edgekit {__version__}.",
    )


def _table(found: Comparison) -> Section:
    head, rows = head_and_rows(found)
    cells: tuple[tuple[Text, ...], ...] = tuple(
        tuple(Cell(cell, "bad") if cell == FAILED else cell for cell in row) for row in rows
    )
    numeric = tuple(range(1, len(head) - 1))
    blocks: list[Block] = [Table("All that was measured", head, cells, numeric)]
    blocks += [Note(f"{line}.", "plain") for line in beaten_lines(found)]
    blocks += [Note(f"{line}.", "bad" if line.startswith(FAILED) else "warn") for line in warnings(found)]
    blocks.append(Facts(tuple((name, rest) for name, _, rest in (line.partition(": ") for line in measured(found)))))
    return Section("table", "Comparison", tuple(blocks), state="failed" if found.failures else "ok")


def plots(found: Comparison) -> list[Scatter]:
    """Size in bytes and each measure of quality, of the bundles that were measured."""
    rows = [row for row in found.rows if not row.subject.reference_only]
    drawn = []
    for title, y_title, more, measure in _ENCODER if found.encoders else _DECODER:
        made = [(row, measured) for row in rows if (measured := measure(row)) is not None]
        spots = tuple(Spot(row.label, row.subject.bytes, *measured, row.standing is not None) for row, measured in made)
        if spots:
            drawn.append(Scatter(title, "size", y_title, spots, x_unit="B", more_is_better=more))
    return drawn


Range = tuple[float, float | None, float | None]


def _perplexity(row: Row) -> Range | None:
    if not isinstance(row.quality, Quality):
        return None
    return _range(row.quality.perplexity.perplexity, row.quality.perplexity.standard_error)


def _kl(row: Row) -> Range | None:
    if not isinstance(row.quality, Quality) or row.quality.kl is None:
        return None
    return _range(row.quality.kl, row.quality.kl_error)


def _spearman(row: Row) -> Range | None:
    return (row.quality.spearman, None, None) if isinstance(row.quality, EmbeddingMeasures) else None


def _cosine(row: Row) -> Range | None:
    return (row.quality.cosine_mean, None, None) if isinstance(row.quality, EmbeddingMeasures) else None


def _range(value: float, error: float | None) -> Range:
    return (value, None, None) if error is None else (value, value - error, value + error)


#: Title, title of the y axis, whether more is better, and the measure.
_DECODER = (
    ("Size and perplexity", "perplexity", False, _perplexity),
    ("Size and distance from the reference", "KL to the reference (nats per token)", False, _kl),
)
_ENCODER = (
    ("Size and likeness of similarities", "Spearman's ρ to the reference", True, _spearman),
    ("Size and likeness of embeddings", "mean cosine to the reference", True, _cosine),
)


def _quality(found: Comparison) -> Section | None:
    drawn = plots(found)
    if not drawn:
        return None
    caption = (
        "The line joins those that no other one beats in both; a cross is a bundle that is beaten in all measures."
    )
    if not found.encoders:
        caption += (
            " Whiskers: one standard error between windows. The same windows were given to all, so changes are known "
            "better than each figure."
        )
    figures = tuple(Figure(plot, caption if index == 0 else "") for index, plot in enumerate(drawn))
    return Section("quality", "Size and quality", figures)


def _speed(found: Comparison) -> Section | None:
    groups = tuple((row.label, tuple(row.speed["samples"])) for row in found.rows if row.speed is not None)
    if not groups:
        return None
    unit = "texts/s" if found.encoders else "tokens/s"
    plot = Strips("Embedding" if found.encoders else "Decoding", unit, "speed", groups, from_zero=True)
    caption = "Every dot is a timing; the box is the middle half, the line the median. Timed in turns."
    return Section("speed", "Speed", (Figure(plot, caption), _machine(found)))


def _machine(found: Comparison) -> Facts:
    rows: list[tuple[str, Text]] = []
    environment = found.environment
    for row in found.rows:
        if row.speed is not None:
            peak = row.speed["peak_memory_bytes"]
            memory = "" if peak is None else f"{quantity(peak, 'B')} at most in memory, "
            noise = row.speed["others_cpu_share"]
            busy = "" if noise is None else f"others took {percent(noise, 2)} of the processors, "
            rows.append((row.label, f"{memory}{busy}{moment(row.speed['last_at'])}"))
    rows.append(("machine", f"{environment['cpu'] or 'unknown processor'}, {environment['system']}"))
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items())))
    if environment["commit"]:
        rows.append(("commit of edgekit", Cell(environment["commit"], code=True)))
    return Facts(tuple(rows))


def _bundles(found: Comparison) -> Section:
    rows: list[tuple[Text, ...]] = []
    for row in found.rows:
        bundle = row.subject.bundle
        words = {True: "passed", False: "FAILED", None: "not run"}[row.subject.proven]
        if bundle is None:
            rows.append((row.label, "", "float32", "", str(row.subject.path), ""))
            continue
        manifest = bundle.manifest
        place = Cell(str(row.subject.path), note=f"manifest {bundle.manifest_sha256[:12]}…")
        rows.append((row.label, manifest.model.name, manifest.dtype, manifest.form, place, words))
    head = ("", "model", "weights", "form", "where", "parity")
    return Section("bundles", "Bundles", (Table("What was compared", head, tuple(rows)),))
