"""Negative log-likelihood of a window's tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgekit.errors import SessionError
from edgekit.evaluate.windows import Window
from edgekit.runtime.session import DecoderSession, Logits

Targets = npt.NDArray[np.int64]

#: Tokens processed at once. Bounds the logits held in memory: 128 positions of a vocabulary of 49152 are 25 MB.
CHUNK = 128
_ROWS = 16


def window_nats(session: DecoderSession, window: Window, chunk: int = CHUNK) -> float:
    """Sum of -ln p(token | tokens before it) over the window's scored tokens, from an empty cache.

    Raises:
        SessionError: a logit is not finite; see also DecoderSession.forward.
    """
    parts = [token_nats(logits, targets) for logits, targets in scored_pieces(session, window, chunk)]
    return math.fsum(float(nats) for part in parts for nats in part)


def scored_pieces(session: DecoderSession, window: Window, chunk: int = CHUNK) -> Iterator[tuple[Logits, Targets]]:
    """Logits [K, V] and the tokens that they predict, int64 [K], of the window's scored tokens, from an empty cache.

    At most `chunk` positions at a time; how they are cut depends on the window alone.
    """
    session.reset()
    inputs = window.tokens[:-1]
    first = len(window.tokens) - window.scored  # the first token that is predicted
    for start in range(0, len(inputs), chunk):
        piece = inputs[start : start + chunk]
        targets = window.tokens[start + 1 : start + 1 + len(piece)]
        wanted = min(len(piece), max(0, start + 1 + len(piece) - first))
        logits = session.forward(np.array([piece], np.int64), keep=max(1, wanted))
        if wanted:
            yield logits[0, -wanted:], np.array(targets[-wanted:])


def token_nats(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """-ln softmax(logits)[target] for each of [positions, vocabulary]; float64 [positions].

    Exponentials are float32 and their sum float64: the error is about 1e-7 of the result.
    """
    result = np.empty(len(logits), np.float64)
    for start in range(0, len(logits), _ROWS):
        rows = logits[start : start + _ROWS]
        highest = rows.max(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):  # refused below
            mass = np.exp(rows - highest).sum(axis=1, dtype=np.float64)
        chosen = rows[np.arange(len(rows)), targets[start : start + _ROWS]].astype(np.float64)
        result[start : start + _ROWS] = np.log(mass) + highest[:, 0] - chosen
    if not np.isfinite(result).all():
        raise SessionError(
            "logits must be finite numbers",
            "some are not",
            "check the bundle: edgekit verify BUNDLE, then edgekit parity BUNDLE",
        )
    return result
