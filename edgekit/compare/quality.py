"""How well decoders predict a text, and how far their distributions are from a reference's, window by window.

One model is in memory at a time. The reference goes first over a group of windows, and its logits lie in a temporary
file, in float32, until the others have gone over the same windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.compare.scratch import Scratch
from edgekit.compare.subject import Engine, Subject, Subjects, why
from edgekit.errors import DoesNotFit, EdgekitError, SessionError
from edgekit.evaluate.of_bundle import measurement_key
from edgekit.evaluate.perplexity import (
    EncodedText,
    Perplexity,
    compared,
    ratio_standard_error,
    summarised,
    windows_of,
)
from edgekit.evaluate.progress_file import RowFile
from edgekit.evaluate.scoring import scored_pieces, token_nats
from edgekit.evaluate.windows import WindowPlan, window_at
from edgekit.progress import Progress

#: Folder of edgekit's cache that finished measurements lie in, and the option that leaves them alone.
KEPT, AGAIN = "compare", "--no-cache"


@dataclass(frozen=True)
class Quality:
    """What a decoder reached on the windows.

    Attributes:
        ratio, ratio_error: of its perplexity to the reference's, with the standard error of the paired difference.
        kl, kl_error: mean KL(reference ‖ it) in nats per predicted token, with its standard error between windows.
        kl_max: of any token.
        top1: share of predicted tokens for which both hold the same one for the likeliest.

    All but `perplexity` are None where the reference could not be measured; errors are for a single window.
    """

    perplexity: Perplexity
    ratio: float | None = None
    ratio_error: float | None = None
    kl: float | None = None
    kl_error: float | None = None
    kl_max: float | None = None
    top1: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        others = {name: getattr(self, name) for name in _MEASURES}
        return {**self.perplexity.to_dict(), **others}


_MEASURES = ("ratio", "ratio_error", "kl", "kl_error", "kl_max", "top1")


@dataclass
class QualityRun:
    """Measures all subjects.

    Attributes:
        windows: how many are measured, from the first.
        cache: whether finished windows are taken from edgekit's cache, and put there.
        failures: why a subject was not measured, by label.
    """

    subjects: Subjects
    text: EncodedText
    plan: WindowPlan
    windows: int
    engine: Engine
    cache: bool
    progress: Progress
    failures: dict[str, EdgekitError] = field(default_factory=dict)
    files: dict[str, RowFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises EdgekitError where the text has no window, or what was kept is damaged."""
        self.windows = windows_of(self.text, self.plan, self.windows)
        self._open_files(self.subjects.reference)

    def pending(self) -> dict[str, int]:
        """Of each subject how many windows are left to measure, those of the reference that others need included."""
        reference = self.subjects.reference.label
        missing = {label: max(0, self.windows - len(file.rows)) for label, file in self.files.items()}
        missing[reference] = max(missing.values())
        return missing

    def run(self) -> dict[str, Quality]:
        """Measure what is left; by label, without those that failed."""
        reference: Subject | None = self.subjects.reference
        kept = self.windows - max(self.pending().values())
        if kept:
            self.progress.note(f"{kept} of {self.windows} windows were measured before ({AGAIN} measures them again)")
        with Scratch(self.plan.context, self._vocabulary()) as scratch:
            for start in range(kept, self.windows, scratch.windows):
                end = min(start + scratch.windows, self.windows)
                scratch.clear()
                if reference is not None and not self._attempt(reference, start, end, scratch):
                    # Without it there is no KL: the others are measured from the first window on.
                    return self._without_reference()
                for subject in self.subjects.all:
                    if subject is not reference and subject.label not in self.failures:
                        self._attempt(subject, start, end, scratch)
        return self._results(reference)

    def _without_reference(self) -> dict[str, Quality]:
        self._open_files(None)
        for subject in self.subjects.all:
            if subject.label not in self.failures:
                self._attempt(subject, 0, self.windows, None)
        return self._results(None)

    def _attempt(self, subject: Subject, start: int, end: int, scratch: Scratch | None) -> bool:
        """Measure the windows of a group that are left; False where that failed, with the reason kept."""
        try:
            if scratch is not None and subject is self.subjects.reference:
                self._reference(subject, start, end, scratch)
            else:
                self._other(subject, start, end, scratch)
        except MemoryError as error:
            self.failures[subject.label] = DoesNotFit(
                "the work must fit in memory", f"an allocation failed: {error}", "close other programs"
            )
        except EdgekitError as error:
            self.failures[subject.label] = error
        if subject.label in self.failures:
            self.progress.note(f"{subject.label} was not measured: {why(self.failures[subject.label])}")
            return False
        return True

    def _reference(self, subject: Subject, start: int, end: int, scratch: Scratch) -> None:
        """Its logits of those windows that another one lacks, and its own sums."""
        rows = self.files[subject.label].rows
        least = min((len(file.rows) for label, file in self.files.items() if label not in self.failures), default=end)
        first = max(start, least)
        if first >= end:
            return

        def measure(session: Any, index: int) -> None:
            nats: list[float] = []
            for logits, targets in scored_pieces(session, window_at(self.text.tokens, index, self.plan)):
                nats += map(float, token_nats(logits, targets))
                scratch.add(index, logits)
            if index == len(rows):
                rows.append([math.fsum(nats), len(nats), 0.0, 0.0, len(nats)])

        self._over(subject, range(first, end), measure)

    def _other(self, subject: Subject, start: int, end: int, scratch: Scratch | None) -> None:
        rows = self.files[subject.label].rows

        def measure(session: Any, index: int) -> None:
            window = window_at(self.text.tokens, index, self.plan)
            pieces = scored_pieces(session, window)
            theirs = scratch.pieces(index) if scratch is not None else None
            rows.append(window_row(pieces, theirs))

        self._over(subject, range(max(start, len(rows)), end), measure)

    def _over(self, subject: Subject, windows: range, measure: Callable[[Any, int], None]) -> None:
        """Open the subject, go over the windows, and keep what is finished whatever happens."""
        if not windows:
            return
        file = self.files[subject.label]
        self.progress.stage(f"loading {subject.label}")
        session = subject.opener(self.engine, self.plan.context)()
        try:
            if self.plan.context > session.capacity:
                raise EdgekitError(
                    "a window must fit into the model's context",
                    f"the window has {self.plan.context} tokens, {subject.label} holds {session.capacity}",
                    f"choose --context {session.capacity} or less",
                )
            self.progress.stage(f"predicting: {subject.label}", len(windows), "windows")
            for index in windows:
                measure(session, index)
                if self.cache:
                    file.save()
                self.progress.advance()
        finally:
            session.close()
            if self.cache:
                file.write()

    def _open_files(self, reference: Subject | None) -> None:
        against = None if reference is None else reference.key(self.engine)
        for subject in self.subjects.all:
            key = measurement_key({**subject.key(self.engine), "against": against}, self.text, self.plan)
            self.files[subject.label] = RowFile(key, kind=KEPT, again=AGAIN)
            if self.cache:
                self.files[subject.label].load()

    def _vocabulary(self) -> int:
        return self.subjects.bundles[0].manifest.model.vocab_size

    def _results(self, reference: Subject | None) -> dict[str, Quality]:
        done = {s.label: self.files[s.label].rows[: self.windows] for s in self.subjects.all}
        done = {label: rows for label, rows in done.items() if label not in self.failures}
        base = None if reference is None else self._perplexity(done[reference.label])
        return {label: quality_of(self._perplexity(rows), rows, base) for label, rows in done.items()}

    def _perplexity(self, rows: Sequence[Sequence[Any]]) -> Perplexity:
        return summarised([(row[0], row[1]) for row in rows], self.text)


def window_row(pieces: Any, theirs: Any) -> list[Any]:
    """Nats, tokens, sum and largest of KL, and agreeing tokens of one window; without `theirs` no KL.

    Raises:
        SessionError: something is not finite.
    """
    from edgekit.parity.compare import agreement, divergence

    nats: list[float] = []
    kl: list[float] = []
    agreeing = 0
    for logits, targets in pieces:
        nats += map(float, token_nats(logits, targets))
        if theirs is not None:
            reference = next(theirs)
            kl += map(float, divergence(logits, reference))
            agreeing += int(agreement(logits, reference).sum())
    if theirs is None:
        return [math.fsum(nats), len(nats), None, None, None]
    if not np.isfinite(kl).all():
        raise SessionError("divergences must be finite numbers", "some are not", "check it: edgekit parity BUNDLE")
    return [math.fsum(nats), len(nats), math.fsum(kl), max(kl), agreeing]


def quality_of(perplexity: Perplexity, rows: Sequence[Sequence[Any]], base: Perplexity | None) -> Quality:
    """From the rows of all windows; `base`: the reference's perplexity."""
    if base is None:
        return Quality(perplexity)
    ratio = compared(perplexity, base)
    total = math.fsum(row[2] for row in rows)
    mean = total / perplexity.tokens
    return Quality(
        perplexity,
        ratio.ratio,
        ratio.standard_error,
        mean,
        ratio_standard_error([row[2] - mean * row[1] for row in rows], perplexity.tokens),
        max(row[3] for row in rows),
        sum(row[4] for row in rows) / perplexity.tokens,
    )
