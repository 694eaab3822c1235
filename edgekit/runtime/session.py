"""What the decode loop needs from an inference engine, and how a bundle is opened with one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from edgekit.contract import KIND_DECODER
from edgekit.runtime.backends import backend_named

if TYPE_CHECKING:
    from edgekit.bundle import Bundle

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]


class DecoderSession(Protocol):
    """A decoder with its key/value cache. Not safe for use by two threads at once.

    B batch (fixed from one reset to the next), S new tokens, K kept positions, V vocabulary, F features of a position.
    """

    @property
    def name(self) -> str:
        """Short name of the engine: "onnxruntime-cpu"."""

    @property
    def description(self) -> str:
        """Engine, version, provider and threads, for people."""

    @property
    def length(self) -> int:
        """Tokens in the cache."""

    @property
    def capacity(self) -> int:
        """Most tokens the cache can hold."""

    @property
    def features(self) -> Features | None:
        """What draft heads read at the kept positions of the last forward that succeeded: float32 [B, K, F].

        None where the decoder has no draft heads, and before the first forward. A rollback leaves them as they are.
        """

    def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
        """Append tokens [B, S] to the cache and return the logits [B, K, V] of the last `keep` positions.

        Args:
            tokens: int64 [B, S], S >= 1.
            keep: positions whose logits are wanted, counted from the end; 0 for all of them. K = min(keep, S).

        Returns:
            float32 [B, K, V], owned by the caller.

        Raises:
            SessionError: the cache would overflow, the tokens are malformed or the engine failed. The cache
                then still holds `length` tokens.
            DoesNotFit: memory ran out.
        """

    def rollback(self, length: int) -> None:
        """Forget all but the first `length` tokens. Raises SessionError unless 0 <= length <= self.length."""

    def reset(self) -> None:
        """Forget everything; the next forward may use another batch."""

    def close(self) -> None:
        """Free the weights and the cache; the session cannot be used afterwards."""


def session_from_bundle(
    bundle: Bundle,
    *,
    backend: str = "cpu",
    threads: int | None = None,
    capacity: int | None = None,
    operators: str = "auto",
) -> DecoderSession:
    """Open a bundle's graph.

    Args:
        backend: one of `edgekit.runtime.backends.BACKENDS`; there is no fallback from one to another.
        threads: intra-operator threads; None for one per physical core this process may use.
        capacity: most tokens of context; None for all that the bundle allows.
        operators: how custom operators run: one of `edgekit.runtime.operators.CHOICES`.

    Raises:
        SessionError: the backend is missing here, the graph cannot be loaded, or `capacity` exceeds the bundle's.
        BundleError: the bundle holds no decoder, or its graph's inputs and outputs are not those of edgekit.contract.
        DoesNotFit: memory ran out.
    """
    from edgekit.bundle import require_kind

    require_kind(bundle, KIND_DECODER, "decoding")
    opener = backend_named(backend).opener
    session: DecoderSession = opener(bundle, threads=threads, capacity=capacity, operators=operators)
    return session
