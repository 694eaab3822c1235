"""An encoder over ONNX Runtime: token ids in, one vector for each text out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.errors import BundleError, SessionError
from edgekit.runtime.operators import support_for
from edgekit.runtime.ort_engine import inference_session, ort_errors, ort_signature

if TYPE_CHECKING:
    from edgekit.bundle import Bundle

Embeddings = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

BACKENDS = ("cpu", "cuda")


class EncoderSession:
    """A bundle's encoder. B texts, S tokens of the longest, D dimensions.

    Attributes:
        dimensions: of an embedding.
        max_tokens: the most tokens of a text.
        description: engine, version, provider and threads, for people.
    """

    def __init__(self, bundle: Bundle, *, backend: str = "cpu", threads: int | None = None) -> None:
        """Load the bundle's graph.

        Raises:
            BundleError: the bundle holds no encoder, or its graph is not as `edgekit.contract` says.
            SessionError, DoesNotFit: ONNX Runtime cannot load it.
        """
        from edgekit.bundle import require_kind

        require_kind(bundle, contract.KIND_ENCODER, "making embeddings")
        encoder, pad = bundle.manifest.encoder, bundle.manifest.tokens.pad
        assert encoder is not None
        assert pad is not None
        if backend not in BACKENDS:
            raise SessionError(f"an encoder's backend is one of {', '.join(BACKENDS)}", f"it is {backend!r}")
        operators = support_for(bundle, backend)
        self._session, self.description = inference_session(bundle.graph, backend, threads, operators)
        self.dimensions, self.max_tokens, self._pad = encoder.dimensions, encoder.max_tokens, pad
        self._vocab = bundle.manifest.model.vocab_size
        self._token_types = self._check_signature(bundle.manifest.graph.file)

    def _check_signature(self, graph: str) -> bool:
        """Whether the graph takes token types. Raises BundleError where it is not an encoder's."""
        inputs, outputs = ort_signature(self._session)
        found = [(value.name, value.dtype) for value in inputs]
        made = [(value.name, value.dtype, value.shape[-1]) for value in outputs]
        expected = [(value.name, value.dtype, self.dimensions) for value in contract.encoder_outputs(self.dimensions)]
        for token_types in (False, True):
            taken = [(value.name, value.dtype) for value in contract.encoder_inputs(token_types)]
            if (found, made) == (taken, expected):
                return token_types
        raise BundleError(
            "an encoder's inputs and outputs must be those that edgekit writes",
            f"{graph}: it takes {found} and gives {made}",
            "export the bundle again with this version of edgekit",
        )

    def forward(self, ids: Ids, mask: Ids) -> Embeddings:
        """Embeddings float32 [B, D].

        Args:
            ids: int64 [B, S], at most `max_tokens` of them.
            mask: int64 [B, S], zeros for padding, which is at the right.

        Raises:
            SessionError: the tokens are malformed, or the engine failed.
        """
        if ids.ndim != 2 or ids.dtype != np.int64 or 0 in ids.shape or mask.shape != ids.shape:
            raise SessionError(
                "tokens and their mask are int64 [batch, sequence] with at least one of each",
                f"they are {ids.dtype} {list(ids.shape)} and {mask.dtype} {list(mask.shape)}",
            )
        if ids.min() < 0 or ids.max() >= self._vocab or not mask.any(axis=1).all():
            raise SessionError(
                "a token is a row of the vocabulary, and each text has one",
                f"tokens lie between {ids.min()} and {ids.max()}, the vocabulary has {self._vocab}",
            )
        if ids.shape[1] > self.max_tokens:
            raise SessionError(
                "a text must fit into the encoder", f"it takes {self.max_tokens} tokens, {ids.shape[1]} were given"
            )
        feeds = {contract.INPUT_IDS: ids, contract.ATTENTION_MASK: mask}
        if self._token_types:
            feeds[contract.TOKEN_TYPE_IDS] = np.zeros_like(ids)
        with ort_errors(f"embed {len(ids)} texts of {ids.shape[1]} tokens"):
            (embedding,) = self._session.run([contract.SENTENCE_EMBEDDING], feeds)
        return np.asarray(embedding, np.float32)

    def embed(
        self, texts: Sequence[Sequence[int]], batch: int = 32, advance: Callable[[int], None] = lambda count: None
    ) -> Embeddings:
        """Embeddings float32 [n, D] of texts given as tokens, in their order.

        Texts of like length are run together, so that little is padding.

        Args:
            batch: how many are run at once.
            advance: called with the number of texts done since the last call.
        """
        result = np.empty((len(texts), self.dimensions), np.float32)
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            result[chosen] = self.forward(*padded([texts[index] for index in chosen], self._pad))
            advance(len(chosen))
        return result


def padded(texts: Sequence[Sequence[int]], pad: int) -> tuple[Ids, Ids]:
    """Token ids and their mask, int64 [B, S], padded at the right to the longest."""
    longest = max(map(len, texts))
    ids, mask = np.full((len(texts), longest), pad, np.int64), np.zeros((len(texts), longest), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask
