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


def spots(found: Comparison) -> tuple[Spot, ...]:
    """Size in bytes and quality of each bundle that was measured."""
    made = []
    for row in found.rows:
        if row.subject.reference_only or row.quality is None:
            continue
        low, middle, high = quality_range(row)
        made.append(Spot(row.label, row.subject.bytes, middle, low, high, row.standing is not None))
    return tuple(made)


def quality_range(row: Row) -> tuple[float | None, float, float | None]:
    """One standard error below the quality, the quality, and one above; no errors where there are none."""
    found = row.quality
    if isinstance(found, Quality):
        middle, error = found.perplexity.perplexity, found.perplexity.standard_error
        return (None, middle, None) if error is None else (middle - error, middle, middle + error)
    assert isinstance(found, EmbeddingMeasures)
    return None, found.spearman, None


def quality_title(found: Comparison) -> str:
    """What the y axis shows."""
    return "Spearman's ρ of similarities (more is better)" if found.encoders else "perplexity (less is better)"


def _quality(found: Comparison) -> Section | None:
    points = spots(found)
    if not points:
        return None
    plot = Scatter("Size and quality", "size", quality_title(found), points, x_unit="B")
    caption = "The line joins the bundles that no other one beats in both; a cross is one that is beaten."
    if not found.encoders:
        caption += (
            " Whiskers: one standard error between windows. The same windows were given to all, so differences "
            "(change) are known better than each."
        )
    return Section("quality", "Size and quality", (Figure(plot, caption),))


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
