"""Timing an open encoder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.benchmark.noise import cpu_clock, others_share
from edgekit.benchmark.samples import summary
from edgekit.errors import SessionError
from edgekit.progress import Progress
from edgekit.runtime.encoder_session import EncoderSession

#: Embeddings of a text alone and among longer ones differ by rounding alone; a mask that is not heeded gives far less.
_CHECK_COSINE = 0.98
_CHECK_TEXTS = 8


def measure(
    session: EncoderSession, tokens: Sequence[Sequence[int]], repetitions: int, progress: Progress
) -> dict[str, Any]:
    """Embed the texts `repetitions` times, in batches as `EncoderSession.embed` makes them, after one that does not
    count; for JSON.
    """
    progress.stage("measuring", repetitions + 1, "repetitions")
    seconds, noise = [], []
    for repetition in range(repetitions + 1):
        before, started = cpu_clock(), time.perf_counter()
        session.embed(tokens)
        if repetition > 0:
            seconds.append(time.perf_counter() - started)
            noise.append(others_share(before, cpu_clock()))
        progress.advance()
    shares = [share for share in noise if share is not None]
    return {
        "texts": len(tokens),
        "tokens": sum(map(len, tokens)),
        "texts_per_s": summary([len(tokens) / each for each in seconds]),
        "others_cpu_share": summary(shares) if shares else None,
    }


def check_embeddings(session: EncoderSession, tokens: Sequence[Sequence[int]]) -> None:
    """Raise SessionError unless embeddings are finite, the same twice, and of a text alone as among others."""
    chosen = tokens[:_CHECK_TEXTS]
    together, again = session.embed(chosen), session.embed(chosen)
    alone = np.concatenate([session.embed([text]) for text in chosen])
    if not np.isfinite(together).all() or not together.any(axis=1).all():
        raise _wrong("an embedding is not finite, or zero")
    if not np.array_equal(together, again):
        raise _wrong("the same texts had other embeddings the second time")
    products = (together.astype(np.float64) * alone).sum(axis=1)
    cosines = products / (np.linalg.norm(together, axis=1) * np.linalg.norm(alone, axis=1))
    if not cosines.min() >= _CHECK_COSINE:
        raise _wrong(f"embeddings of a text alone and among others have a cosine of {cosines.min():.4f}")


def _wrong(fact: str) -> SessionError:
    return SessionError(
        "a session must give the right answer before its speed means anything",
        fact,
        "check the bundle: edgekit verify BUNDLE, then edgekit parity BUNDLE",
    )
