"""A comparison in words: the table's cells, and what is to be known to read it."""

from __future__ import annotations

from edgekit.compare.quality import Quality
from edgekit.compare.run import Comparison, Row
from edgekit.compare.subject import why
from edgekit.evaluate.embeddings import EmbeddingMeasures
from edgekit.report.numbers import NO_BREAK_SPACE, change, percent, plain, quantity
from edgekit.words import counted

NONE = "–"
FAILED = "FAILED"
_DECODER = ("perplexity", "change", "KL", "same top", "size", "read/token", "tokens/s", "beaten by")
_ENCODER = ("cosine", "smallest", "Spearman", "same nearest", "probe", "size", "texts/s", "beaten by")


def head_and_rows(found: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table: headings, and a row for each bundle."""
    return ("bundle", *(_ENCODER if found.encoders else _DECODER)), [_row(row, found) for row in found.rows]


def _row(row: Row, found: Comparison) -> tuple[str, ...]:
    name = f"{row.label} (reference)" if row.is_reference else row.label
    if row.is_reference and row.subject.reference_only and row.subject.bundle is None:
        name = f"{row.label}, reference"
    quality = _encoder_cells(row) if found.encoders else _decoder_cells(row)
    size = quantity(row.subject.bytes, "B")
    read = () if found.encoders else (NONE if row.traffic is None else quantity(row.traffic.bytes, "B"),)
    speed = NONE if row.speed is None else plain(row.speed["median"])
    if "bytes read" in row.failures:
        read = (FAILED,)
    if "speed" in row.failures:
        speed = FAILED
    return (name, *quality, size, *read, speed, "" if row.standing is None else row.standing.by)


def _decoder_cells(row: Row) -> tuple[str, ...]:
    found = row.quality
    if not isinstance(found, Quality):
        return _absent(row, 4)
    ratio = NONE if found.ratio is None or row.is_reference else changed(found.ratio, found.ratio_error)
    kl = NONE if found.kl is None else _with_error(found.kl, found.kl_error)
    top1 = NONE if found.top1 is None else percent(found.top1)
    return (plain(found.perplexity.perplexity, 4), ratio, kl, top1)


def changed(ratio: float, error: float | None) -> str:
    """A ratio with its standard error as a signed change: "+0.35 ± 0.12 %"."""
    number, space, unit = change(ratio).partition(NO_BREAK_SPACE)
    return f"{number}{'' if error is None else f' ± {error * 100:.2f}'}{space}{unit}"


def _encoder_cells(row: Row) -> tuple[str, ...]:
    found = row.quality
    if not isinstance(found, EmbeddingMeasures):
        return _absent(row, 5)
    return (
        f"{found.cosine_mean:.5f}",
        f"{found.cosine_min:.5f}",
        f"{found.spearman:.5f}",
        percent(found.retrieval_top1),
        percent(found.probe_accuracy),
    )


def _absent(row: Row, cells: int) -> tuple[str, ...]:
    return (FAILED if "quality" in row.failures else NONE, *[NONE] * (cells - 1))


def _with_error(value: float, error: float | None) -> str:
    shown = plain(value)
    if error is None or value == 0 or "e" in shown:
        return shown
    return f"{shown} ± {error:.{len(shown.partition('.')[2])}f}"


def remarks(found: Comparison) -> list[str]:
    """What was measured, on what and how; which are beaten, and what went wrong; a sentence each."""
    return [*measured(found), *beaten_lines(found), *warnings(found)]


def measured(found: Comparison) -> list[str]:
    """On what and how."""
    lines = [f"reference: {found.reference.label}"]
    text, settings = found.text, found.settings
    if found.encoders:
        lines.append(f"text: {text['name']}, {counted(text['texts'], 'passages')}, {counted(text['tokens'], 'tokens')}")
    else:
        predicted = [row.quality.perplexity.tokens for row in found.rows if isinstance(row.quality, Quality)]
        count = f", {counted(predicted[0], 'tokens')} predicted" if predicted else ""
        lines.append(
            f"text: the first {settings['windows']} windows of {settings['context']} tokens of {text['name']} "
            f"({text['tokens']:,} tokens){count}; ± is one standard error, between windows"
        )
        if any(row.traffic is not None and not row.traffic.exact for row in found.rows):
            lines.append("read/token: all weight files; which tables are read by the row needs the package onnx")
        else:
            lines.append(
                f"read/token: weights and the cache at {settings['depth'] + settings['decode_tokens'] // 2} tokens; of "
                "embeddings that are not the output head a token reads one row, which is left out"
            )
    speeds = [row.speed for row in found.rows if row.speed is not None]
    if speeds:
        what = "texts/s" if found.encoders else f"tokens/s at {settings['depth']} tokens in the cache"
        noise = [speed["others_cpu_share"] for speed in speeds if speed["others_cpu_share"] is not None]
        busy = f"; others took {percent(sum(noise) / len(noise), 2)} of the processors" if noise else ""
        lines.append(
            f"{what}: median of {len(speeds[0]['samples'])} timings in {speeds[0]['rounds']} rounds, "
            f"{speeds[0]['session']}{busy}"
        )
    return lines


def beaten_lines(found: Comparison) -> list[str]:
    """A sentence for each bundle that need not be chosen."""
    what = "in likeness to the reference" if found.encoders else "in quality"
    unit = "texts/s" if found.encoders else "tokens/s"
    lines = []
    for row in found.rows:
        if (standing := row.standing) is None:
            continue
        sure = {True: "", False: " (in perplexity within the error)", None: ""}[standing.certain]
        all_the_same = "" if standing.faster is None else f"; it is {plain(standing.faster)} × as fast ({unit})"
        lines.append(f"{row.label} is beaten by {standing.by} in size and {what}{sure}{all_the_same}")
    return lines


def warnings(found: Comparison) -> list[str]:
    """What was not proven, and what failed."""
    lines = []
    failed = [row.label for row in found.rows if row.subject.proven is False]
    unproven = [row.label for row in found.rows if row.subject.bundle is not None and row.subject.proven is None]
    if failed:
        lines.append(f"FAILED edgekit parity: {', '.join(failed)}")
    if unproven:
        lines.append(f"not compared with PyTorch by edgekit parity: {', '.join(unproven)}")
    for row in found.rows:
        for what, error in row.failures.items():
            lines.append(f"FAILED: {what} of {row.label}: {why(error)}")
    return lines
