"""Perplexity of a text under a decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.evaluate.progress_file import ProgressFile
from edgekit.evaluate.scoring import CHUNK, window_nats
from edgekit.evaluate.windows import WindowPlan, window_at, window_count
from edgekit.progress import Progress, SilentProgress
from edgekit.runtime.session import DecoderSession


@dataclass(frozen=True)
class EncodedText:
    """A text as tokens, with the number of its UTF-8 bytes and the SHA-256 of these."""

    name: str
    tokens: list[int] = field(repr=False)
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Perplexity:
    """The result for one decoder and one text.

    Attributes:
        tokens: how many were predicted.
        nats: the sum of their negative log-likelihoods.
        bits_per_byte: mean bits per token times the whole text's tokens per byte: comparable between tokenizers.
        standard_error: of `perplexity`, from the spread between windows; None for a single window.
        windows: for each its nats and its number of predicted tokens.
    """

    perplexity: float
    standard_error: float | None
    bits_per_byte: float
    nats: float
    tokens: int
    windows: tuple[tuple[float, int], ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the attributes, windows as their number."""
        return {**asdict(self), "windows": len(self.windows)}


@dataclass(frozen=True)
class Comparison:
    """The ratio of two perplexities on the same windows; the error is that of the paired difference."""

    ratio: float
    standard_error: float | None


def measure(
    open_session: Callable[[], DecoderSession],
    text: EncodedText,
    plan: WindowPlan,
    *,
    file: ProgressFile | None = None,
    max_windows: int | None = None,
    progress: Progress | None = None,
) -> Perplexity:
    """Measure window after window; windows that `file` holds already are not measured again.

    Args:
        open_session: called when there is a window left to measure; the session is closed at the end.

    Raises:
        EdgekitError: the text holds too few tokens, or a window does not fit into the session's context.
        SessionError, DoesNotFit: see DecoderSession.forward.
    """
    progress = progress or SilentProgress()
    sums = file.sums if file is not None else []
    count = windows_of(text, plan, max_windows)
    done = min(len(sums), count)
    if done:
        progress.note(f"{done} of {count} windows were measured before (--restart measures them again)")
    if done == count:
        return summarised(sums[:count], text)
    progress.stage("loading the model")
    session = open_session()
    _check_context(session, plan)
    progress.stage(f"measuring perplexity ({session.name})", count - done, "windows")
    try:
        for index in range(done, count):
            window = window_at(text.tokens, index, plan)
            sums.append((window_nats(session, window, CHUNK), window.scored))
            if file is not None:
                file.save()
            progress.advance()
    finally:
        session.close()
        if file is not None:
            file.write()
    return summarised(sums[:count], text)


def _check_context(session: DecoderSession, plan: WindowPlan) -> None:
    if plan.context > session.capacity:
        raise EdgekitError(
            "a window must fit into the model's context",
            f"the window has {plan.context} tokens, {session.description} holds {session.capacity}",
            f"choose --context {session.capacity} or less",
        )


def windows_of(text: EncodedText, plan: WindowPlan, max_windows: int | None) -> int:
    """How many windows are measured. Raises EdgekitError when there is none."""
    count = window_count(len(text.tokens), plan)
    if count == 0:
        raise EdgekitError(
            "a text must hold at least two tokens", f"{text.name} holds {len(text.tokens)}", "give a longer --text"
        )
    return count if max_windows is None else min(count, max_windows)


def summarised(windows: Sequence[tuple[float, int]], text: EncodedText) -> Perplexity:
    """The result from the sums of the windows."""
    nats, tokens = math.fsum(nats for nats, _ in windows), sum(count for _, count in windows)
    mean = nats / tokens
    spread = ratio_standard_error([nats - mean * count for nats, count in windows], tokens)
    return Perplexity(
        perplexity=math.exp(mean),
        standard_error=None if spread is None else math.exp(mean) * spread,
        bits_per_byte=mean / math.log(2) * len(text.tokens) / text.bytes,
        nats=nats,
        tokens=tokens,
        windows=tuple(windows),
    )


def compared(found: Perplexity, reference: Perplexity) -> Comparison:
    """found / reference. Both must have been measured on the same windows."""
    if [count for _, count in found.windows] != [count for _, count in reference.windows]:
        raise ValueError("perplexities of different windows cannot be compared")
    mean = (found.nats - reference.nats) / found.tokens
    pairs = zip(found.windows, reference.windows, strict=True)
    spread = ratio_standard_error([a - b - mean * count for (a, count), (b, _) in pairs], found.tokens)
    return Comparison(math.exp(mean), None if spread is None else math.exp(mean) * spread)


def ratio_standard_error(residuals: Sequence[float], tokens: int) -> float | None:
    """Of a ratio of sums, from each cluster's residual (Cochran, Sampling Techniques, 1977, section 6.3)."""
    clusters = len(residuals)
    if clusters < 2:
        return None
    return math.sqrt(math.fsum(r * r for r in residuals) * clusters / (clusters - 1)) / tokens
