"""Whether two greedy texts of one model agree: token by token, or up to what the engine's rounding decides.

Kernels for one token and for several round differently. Where the likeliest two tokens are nearer to each other than
that, either may be chosen, and from there on the texts are different ones. How near is near is measured, on the very
text: between logits token by token and all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.errors import SessionError
from edgekit.runtime.options import PROMPT_CHUNK
from edgekit.runtime.prefix import common_prefix
from edgekit.runtime.session import DecoderSession, Logits, Tokens

#: Positions on which rounding is measured: those before the first difference.
_POSITIONS = 24
#: Rounding that is allowed for where none is seen, relative to the largest logit.
_LEAST = 1e-5


@dataclass(frozen=True)
class Agreement:
    """How far two texts agree.

    Attributes:
        tokens: that are the same, from the start.
        identical: whether all are, as far as both go.
        gap: at the first difference, how far the token chosen in either text is from the likeliest; 0 if identical.
        rounding: how far logits of one position are apart, token by token and all at once; 0 if identical.
    """

    tokens: int
    identical: bool
    gap: float = 0.0
    rounding: float = 0.0


def agreement(
    session: DecoderSession, prompt: Sequence[int], plain: Sequence[int], drafted: Sequence[int]
) -> Agreement:
    """Compare a text of plain decoding with one of drafts. The session is reset where they differ.

    Raises:
        SessionError: they differ by more than rounding.
    """
    same = common_prefix(plain, drafted)
    if same == min(len(plain), len(drafted)):
        if len(plain) == len(drafted):
            return Agreement(same, True)
        raise _wrong(f"plain decoding gives {len(plain)} tokens and drafts give {len(drafted)} of the same")
    stepped, whole = _both_ways(session, np.array([[*prompt, *plain[:same]]], np.int64))
    scale = float(np.abs(whole).max())
    rounding = max(float(np.abs(stepped - whole).max()), _LEAST * scale)
    # A token that is the likeliest by one rounding is within twice the rounding by another.
    gap = max(float(whole[-1].max() - whole[-1][token]) for token in (plain[same], drafted[same]))
    if gap > 2 * rounding:
        raise _wrong(
            f"after {same} tokens plain decoding says {plain[same]} and drafts say {drafted[same]}; one is {gap:.3g} "
            f"below the likeliest, and rounding accounts for {2 * rounding:.3g}"
        )
    return Agreement(same, False, gap, rounding)


def _both_ways(session: DecoderSession, tokens: Tokens) -> tuple[Logits, Logits]:
    """Logits [K, V] of the last positions, token by token and all at once."""
    count = min(_POSITIONS, tokens.shape[1])
    start = tokens.shape[1] - count
    session.reset()
    for begin in range(0, start, PROMPT_CHUNK):
        session.forward(np.ascontiguousarray(tokens[:, begin : min(begin + PROMPT_CHUNK, start)]))
    whole = session.forward(np.ascontiguousarray(tokens[:, start:]), keep=count)[0]
    session.rollback(start)
    steps = [
        session.forward(np.ascontiguousarray(tokens[:, place : place + 1]))[0] for place in range(start, start + count)
    ]
    return np.concatenate(steps), whole


def _wrong(fact: str) -> SessionError:
    return SessionError(
        "drafts must not change what a model says", fact, "report this, with the bundle's manifest.json and the prompt"
    )
