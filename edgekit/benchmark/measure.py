"""Timing one open session. Times are wall-clock seconds of the engine and of choosing the most likely token."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.benchmark.noise import cpu_clock, others_share
from edgekit.benchmark.samples import summary
from edgekit.errors import SessionError
from edgekit.progress import Progress
from edgekit.runtime.options import PROMPT_CHUNK
from edgekit.runtime.session import DecoderSession, Tokens

_CHECK_PROMPT, _CHECK_TOKENS = 24, 12
#: Kernels for one token and for many round differently where activations are 8-bit; a wrong cache gives far less.
_CHECK_COSINE = 0.98


@dataclass(frozen=True)
class Timing:
    """What to measure: prompt lengths, cache depths at which decoding begins, tokens decoded there."""

    prompt_tokens: tuple[int, ...]
    depths: tuple[int, ...]
    decode_tokens: int
    repetitions: int

    @property
    def longest(self) -> int:
        """Most tokens that are in the cache at a time."""
        return max([*self.prompt_tokens, *(depth + self.decode_tokens for depth in self.depths)])


#: Begin and end of something, on the monotonic clock that telemetry's readings have.
Span = tuple[float, float]


@dataclass
class Timings:
    """Seconds of every repetition; of decoding, seconds of every step of every repetition; and when each was."""

    prompts: dict[int, list[float]] = field(default_factory=dict)
    decodes: dict[int, list[list[float]]] = field(default_factory=dict)
    others: list[float | None] = field(default_factory=list)
    prompt_spans: dict[int, list[Span]] = field(default_factory=dict)
    decode_spans: dict[int, list[Span]] = field(default_factory=dict)

    def to_dict(self, timing: Timing) -> dict[str, Any]:
        """For JSON: seconds and rates, each with its statistics and samples; "steps_s" holds a list per repetition."""
        noise = [share for share in self.others if share is not None]
        count = timing.decode_tokens
        return {
            "prompts": [
                {
                    "tokens": tokens,
                    "ttft_s": summary(seconds),
                    "tokens_per_s": summary([tokens / s for s in seconds]),
                }
                for tokens, seconds in self.prompts.items()
            ],
            "decodes": [
                {
                    "depth": depth,
                    "tokens": count,
                    "s_per_token": summary([sum(steps) / count for steps in repetitions]),
                    "tokens_per_s": summary([count / sum(steps) for steps in repetitions]),
                    "steps_s": repetitions,
                }
                for depth, repetitions in self.decodes.items()
            ],
            "others_cpu_share": summary(noise) if noise else None,
        }


def measure(session: DecoderSession, vocab: int, timing: Timing, progress: Progress) -> Timings:
    """Time each prompt length and each depth once per repetition, so that a drift of the machine meets all alike.

    One repetition more is made first and not counted.

    Args:
        vocab: size of the vocabulary; prompts are random tokens, the same each time.
    """
    tokens = np.random.default_rng(0).integers(0, vocab, (1, timing.longest))
    result = Timings()
    progress.stage("measuring", timing.repetitions + 1, "repetitions")
    for repetition in range(timing.repetitions + 1):
        before = cpu_clock()
        prompts = {count: _prompt(session, tokens[:, :count]) for count in timing.prompt_tokens}
        decodes = _decode(session, tokens, timing)
        if repetition > 0:
            for size, (seconds, span) in prompts.items():
                result.prompts.setdefault(size, []).append(seconds)
                result.prompt_spans.setdefault(size, []).append(span)
            for size, (steps, span) in decodes.items():
                result.decodes.setdefault(size, []).append(steps)
                result.decode_spans.setdefault(size, []).append(span)
            result.others.append(others_share(before, cpu_clock()))
        progress.advance()
    return result


def _prompt(session: DecoderSession, tokens: Tokens) -> tuple[float, Span]:
    """Seconds from an empty cache to the first token, in the pieces in which a prompt is processed; and when."""
    session.reset()
    began, started = time.monotonic(), time.perf_counter()
    _extend(session, tokens)
    return time.perf_counter() - started, (began, time.monotonic())


def _decode(session: DecoderSession, tokens: Tokens, timing: Timing) -> dict[int, tuple[list[float], Span]]:
    """Seconds of each of `decode_tokens` steps that begin with `depth` tokens in the cache, and when; by depth."""
    session.reset()
    found = {}
    for depth in sorted(timing.depths):
        token = _extend(session, tokens[:, session.length : depth])
        began, ends = time.monotonic(), [time.perf_counter()]
        for _ in range(timing.decode_tokens):
            token = int(session.forward(np.array([[token]], np.int64))[0, -1].argmax())
            ends.append(time.perf_counter())
        found[depth] = [end - start for start, end in pairwise(ends)], (began, time.monotonic())
        session.rollback(depth)
    return {depth: found[depth] for depth in timing.depths}


def _extend(session: DecoderSession, tokens: Tokens) -> int:
    """Process a piece of a prompt; the most likely token after it."""
    for start in range(0, tokens.shape[1], PROMPT_CHUNK):
        logits = session.forward(np.ascontiguousarray(tokens[:, start : start + PROMPT_CHUNK]))
    return int(logits[0, -1].argmax())


def check_answers(session: DecoderSession, vocab: int) -> None:
    """Raise SessionError unless the session answers twice alike, and token by token as it does all at once."""
    prompt = np.random.default_rng(1).integers(0, vocab, (1, _CHECK_PROMPT))
    first, steps = _greedy(session, prompt)
    again, _ = _greedy(session, prompt)
    if first != again:
        raise _wrong(f"the same prompt was continued by {first} and then by {again}")
    session.reset()
    whole = session.forward(np.concatenate([prompt, [first[:-1]]], axis=1), keep=_CHECK_TOKENS)[0].astype(np.float64)
    if not (np.isfinite(whole).all() and np.isfinite(steps).all()):
        raise _wrong("some logits are not finite")
    cosines = (whole * steps).sum(1) / (np.linalg.norm(whole, axis=1) * np.linalg.norm(steps, axis=1))
    if not cosines.min() >= _CHECK_COSINE:
        raise _wrong(f"logits token by token and all at once have a cosine of {cosines.min():.4f}")


def _greedy(session: DecoderSession, prompt: Tokens) -> tuple[list[int], npt.NDArray[np.float64]]:
    """The tokens after a prompt and the logits [tokens, vocab] they were chosen from."""
    session.reset()
    chosen: list[int] = []
    rows = []
    pending = prompt
    for _ in range(_CHECK_TOKENS):
        rows.append(session.forward(pending)[0, -1].astype(np.float64))
        chosen.append(int(rows[-1].argmax()))
        pending = np.array([[chosen[-1]]], np.int64)
    return chosen, np.stack(rows)


def _wrong(fact: str) -> SessionError:
    return SessionError(
        "a session must give the right answer before its speed means anything",
        fact,
        "check the bundle: edgekit verify BUNDLE, then edgekit parity BUNDLE",
    )
