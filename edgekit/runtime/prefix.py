"""Which tokens lie in a session's cache, so that a prompt's known beginning is not processed again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.runtime.feature_trail import FeatureTrail
from edgekit.runtime.session import DecoderSession, Features, Logits


class PrefixCache:
    """A session (batch 1) together with the tokens in its cache, and what draft heads read of the last of them."""

    def __init__(self, session: DecoderSession) -> None:
        """Takes the session over: whatever its cache held is forgotten."""
        session.reset()
        self.session = session
        self._tokens: list[int] = []
        self._trail = FeatureTrail()

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens in the cache, oldest first."""
        return tuple(self._tokens)

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self.session.capacity - self.session.length

    def match(self, tokens: Sequence[int]) -> int:
        """Keep the longest beginning that the cache and `tokens` share; give its length.

        At least the last of `tokens` is left to process, because its logits are not kept.
        """
        shared = common_prefix(self._tokens, tokens[: max(len(tokens) - 1, 0)])
        self.session.rollback(shared)
        self._cut(shared)
        return shared

    def extend(self, tokens: Sequence[int]) -> Logits:
        """Append tokens; give the logits float32 [V] after the last one."""
        last: Logits = self.extend_block(tokens, 1)[-1]
        return last

    def extend_block(self, tokens: Sequence[int], keep: int) -> Logits:
        """Append tokens; give the logits float32 [K, V] after each of the last `keep` (>= 1), K = min(keep, S)."""
        logits = self.session.forward(np.asarray([tokens], dtype=np.int64), keep)
        self._tokens.extend(tokens)
        if self.session.features is not None:
            self._trail.extend(self.session.features[0], len(tokens))
        rows: Logits = logits[0]
        return rows

    def drop(self, count: int) -> None:
        """Forget the last `count` tokens."""
        if count:
            self.session.rollback(len(self._tokens) - count)
            self._cut(len(self._tokens) - count)

    def features(self) -> Features | None:
        """What draft heads read at the last tokens in the cache, float32 [P, F], until the next change.

        Returns:
            None where the decoder has no draft heads, or nothing is known of the last token.
        """
        return self._trail.known

    def _cut(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        self._trail.drop(len(self._tokens) - length)
        del self._tokens[length:]


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common beginning, found by halving: lists are compared much faster than their items."""
    if type(first) is not type(second):
        first, second = list(first), list(second)
    alike, most = 0, min(len(first), len(second))
    while alike < most:
        middle = (alike + most + 1) // 2
        if first[alike:middle] == second[alike:middle]:
            alike = middle
        else:
            most = middle - 1
    return alike
