"""A comparison from start to end: what is measured, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.benchmark.environment import environment
from edgekit.compare.encoders import EncoderRun
from edgekit.compare.estimate import estimated_seconds, told_seconds
from edgekit.compare.pareto import Candidate, Standing, beaten
from edgekit.compare.quality import Quality, QualityRun
from edgekit.compare.speed import Pace, SpeedRun
from edgekit.compare.subject import Engine, Subject, Subjects, why
from edgekit.compare.traffic import Traffic, traffic_of
from edgekit.errors import EdgekitError
from edgekit.evaluate.embeddings import EmbeddingMeasures
from edgekit.evaluate.perplexity import EncodedText, compared
from edgekit.evaluate.text import SHIPPED_TEXT, encoded_text
from edgekit.evaluate.windows import WindowPlan, plan_of
from edgekit.progress import Progress

SCHEMA = 1
CONTEXT, WINDOWS, ROUNDS, DEPTH, DECODE_TOKENS = 512, 20, 5, 256, 32


@dataclass(frozen=True)
class Options:
    """What is measured of decoders, and how fast anything is.

    Attributes:
        text: what is predicted; None for the text that is shipped.
        context: tokens of a window; None for CONTEXT, or what the shortest context of the bundles holds.
        windows: how many, from the first.
        rounds: in which speed is measured; 0 to leave it out.
        depth: tokens in the cache when decoding is timed; None for DEPTH, or what the shortest context holds.
        cache: whether finished measurements are taken from edgekit's cache, and put there.
    """

    engine: Engine
    text: Path | None = None
    context: int | None = None
    windows: int = WINDOWS
    rounds: int = ROUNDS
    depth: int | None = None
    decode_tokens: int = DECODE_TOKENS
    cache: bool = True


@dataclass
class Row:
    """A subject with all that was measured of it; `failures`: why something was not, by what it is."""

    subject: Subject
    is_reference: bool
    traffic: Traffic | None = None
    quality: Quality | EmbeddingMeasures | None = None
    speed: dict[str, Any] | None = None
    standing: Standing | None = None
    failures: dict[str, EdgekitError] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The subject's."""
        return self.subject.label

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        bundle, measured = self.subject.bundle, self.quality
        return {
            "label": self.label,
            "path": str(self.subject.path),
            "reference": self.is_reference,
            "compared": not self.subject.reference_only,
            "manifest_sha256": None if bundle is None else bundle.manifest_sha256,
            "model": None if bundle is None else bundle.manifest.model.name,
            "form": None if bundle is None else bundle.manifest.form,
            "dtype": "float32 (PyTorch)" if bundle is None else bundle.manifest.dtype,
            "parity": self.subject.proven,
            "bytes": self.subject.bytes,
            "read_per_token": None if self.traffic is None else self.traffic.to_dict(),
            "quality": None if measured is None else measured.to_dict(),
            "speed": self.speed,
            "beaten": None if self.standing is None else self.standing.to_dict(),
            "failures": {what: why(error) for what, error in self.failures.items()},
        }


@dataclass(frozen=True)
class Comparison:
    """The result. `text`, `settings`, `environment`: for JSON."""

    encoders: bool
    rows: tuple[Row, ...]
    text: dict[str, Any]
    settings: dict[str, Any]
    environment: dict[str, Any]

    @property
    def reference(self) -> Row:
        """What is measured to."""
        return next(row for row in self.rows if row.is_reference)

    @property
    def failures(self) -> list[EdgekitError]:
        """All, in the order of the rows."""
        return [error for row in self.rows for error in row.failures.values()]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": SCHEMA,
            "kind": "encoder" if self.encoders else "decoder",
            "reference": self.reference.label,
            "text": self.text,
            "settings": self.settings,
            "environment": self.environment,
            "bundles": [row.to_dict() for row in self.rows],
        }


def compare(subjects: Subjects, options: Options, progress: Progress) -> Comparison:
    """Measure what was not measured before. A bundle that fails does not keep the others from being measured.

    Raises:
        EdgekitError: the bundles cannot be compared, or what is asked does not fit into their context.
    """
    rows = {subject.label: Row(subject, subject is subjects.reference) for subject in subjects.all}
    settings: dict[str, Any] = {"engine": vars(options.engine), "rounds": options.rounds}
    if subjects.encoders:
        pace = Pace(options.rounds)
        measured: EncoderRun | QualityRun = EncoderRun(subjects, options.engine, progress)
        text = measured.text if isinstance(measured, EncoderRun) else {}
    else:
        pace = Pace(options.rounds, _depth(subjects, options), options.decode_tokens)
        tokens, plan = _text(subjects, options)
        measured = QualityRun(subjects, tokens, plan, options.windows, options.engine, options.cache, progress)
        text = {"name": tokens.name, "sha256": tokens.sha256, "bytes": tokens.bytes, "tokens": len(tokens.tokens)}
        settings |= {
            "context": plan.context,
            "windows": measured.windows,
            "depth": pace.depth,
            "decode_tokens": pace.decode_tokens,
        }
        for row in rows.values():
            _add_traffic(row, pace)
    speeds = SpeedRun(subjects.compared, subjects.encoders, pace, options.engine, options.cache, progress)
    if isinstance(measured, QualityRun):
        estimated_seconds(measured, speeds, progress)
    for label, quality in measured.run().items():
        rows[label].quality = quality
    if options.rounds:
        if isinstance(measured, EncoderRun):
            told_seconds(speeds, measured.seconds, progress)
        # Wrong answers are not timed.
        for label, speed in speeds.run(skip=measured.failures).items():
            rows[label].speed = speed
    for what, failures in (("quality", measured.failures), ("speed", speeds.failures)):
        for label, error in failures.items():
            rows[label].failures[what] = error
    _judge([row for row in rows.values() if not row.subject.reference_only])
    return Comparison(subjects.encoders, tuple(rows.values()), text, settings, environment())


def _add_traffic(row: Row, pace: Pace) -> None:
    if row.subject.bundle is not None:
        try:
            row.traffic = traffic_of(row.subject.bundle, pace.depth + pace.decode_tokens / 2)
        except EdgekitError as error:
            row.failures["bytes read"] = error


def _judge(rows: list[Row]) -> None:
    """Say which are beaten: decoders by perplexity and KL, encoders by likeness of similarities and of vectors."""
    known = {row.label: row for row in rows if row.quality is not None}

    def certain(winner: str, loser: str) -> bool | None:
        found, other = known[winner].quality, known[loser].quality
        if not isinstance(found, Quality) or not isinstance(other, Quality):
            return None
        ratio = compared(found.perplexity, other.perplexity)
        return ratio.standard_error is not None and ratio.ratio + 2 * ratio.standard_error <= 1

    candidates = {label: _candidate(row) for label, row in known.items()}
    for label, standing in beaten(candidates, certain).items():
        known[label].standing = standing


def _candidate(row: Row) -> Candidate:
    found, speed = row.quality, None if row.speed is None else row.speed["median"]
    if isinstance(found, Quality):
        likeness = () if found.kl is None else (found.kl,)
        badness = (found.perplexity.perplexity, *likeness)
        return Candidate(row.subject.bytes, badness, speed, len(likeness), row.is_reference)
    assert found is not None
    return Candidate(row.subject.bytes, (-found.spearman, -found.cosine_mean), speed)


def _shortest(subjects: Subjects) -> int:
    return min(bundle.manifest.cache.capacity_limit for bundle in subjects.bundles)


def _depth(subjects: Subjects, options: Options) -> int:
    room = _shortest(subjects) - options.decode_tokens
    if options.depth is None and room >= 1:
        return min(DEPTH, room)
    if room < (options.depth or 1):
        raise EdgekitError(
            "what is timed must fit into the context of every bundle",
            f"{(options.depth or 1) + options.decode_tokens} tokens are needed, one holds {_shortest(subjects)}",
            "give a smaller --depth or --decode-tokens",
        )
    return options.depth or 1


def _text(subjects: Subjects, options: Options) -> tuple[EncodedText, WindowPlan]:
    """The text as tokens, the same for all. Raises EdgekitError where a tokenizer makes others."""
    path = options.text or SHIPPED_TEXT
    first, *others = subjects.bundles
    context = min(CONTEXT, _shortest(subjects)) if options.context is None else options.context
    if context > _shortest(subjects):
        raise EdgekitError(
            "a window must fit into the context of every bundle",
            f"the window has {context} tokens, one holds {_shortest(subjects)}",
            f"choose --context {_shortest(subjects)} or less",
        )
    text = encoded_text(path, first)
    tokens = first.manifest.tokens
    begin = tokens.bos if tokens.add_bos else None
    for other in others:
        own = other.manifest.tokens
        _require_same(encoded_text(path, other).tokens, text, str(other.path), str(first.path))
        if (own.bos if own.add_bos else None) != begin:
            raise EdgekitError(
                "what is compared must begin texts alike",
                f"{first.path} and {other.path} put different tokens before a text, or one puts none",
                "compare bundles of models with the same tokenizer",
            )
    if (checkpoint := subjects.reference.checkpoint) is not None:
        from edgekit.parity.reference_choices import tokenizer_from_checkpoint

        encoded = tokenizer_from_checkpoint(checkpoint).encode(path.read_bytes().decode("utf-8"))
        _require_same(encoded, text, str(checkpoint.path), str(first.path))
    return text, plan_of(context, None, begin)


def _require_same(tokens: list[int], text: EncodedText, one: str, other: str) -> None:
    if tokens != text.tokens:
        raise EdgekitError(
            "what is compared must predict the same tokens",
            f"the tokenizers of {one} and {other} make others of {text.name}",
            "compare bundles of models with the same tokenizer; bits per byte of edgekit eval compare others",
        )
