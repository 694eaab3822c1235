"""A decoder session over ONNX Runtime, on the CPU or on CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.errors import SessionError
from edgekit.runtime.operators import NO_OPERATORS, OperatorSupport, support_for
from edgekit.runtime.ort_cache import ConcatCache, OrtCache, SharedCache
from edgekit.runtime.ort_engine import inference_session, ort_errors, ort_signature
from edgekit.runtime.session import Features, Logits, Tokens
from edgekit.runtime.signature import check_call, check_opening, check_rollback, decoder_signature, features_width

if TYPE_CHECKING:
    from edgekit.bundle import Bundle


class OrtSession:
    """Implements DecoderSession; what is bound stays bound, so that a step binds only what changed.

    B batch, S new tokens, T = length + S, K kept positions, V vocabulary.

    Attributes:
        features: see DecoderSession.features.
    """

    def __init__(
        self,
        graph: Path,
        *,
        cache_kind: str,
        capacity_limit: int,
        backend: str = "cpu",
        threads: int | None = None,
        capacity: int | None = None,
        operators: OperatorSupport = NO_OPERATORS,
    ) -> None:
        """Load `graph`.

        Args:
            cache_kind: contract.CACHE_SHARED or contract.CACHE_CONCAT.
            capacity_limit: most tokens the graph can address.
            capacity: most tokens wanted; None for the limit.
            operators: how the graph's custom operators run; the cache grows where they cannot write in place.

        Raises:
            SessionError, DoesNotFit: see session_from_bundle.
            BundleError: the graph's inputs and outputs are not those of edgekit.contract.
        """
        self.capacity = check_opening(cache_kind, capacity, capacity_limit)
        self.name = f"onnxruntime-{backend}"
        self._session, self.description = inference_session(graph, backend, threads, operators)
        signature = ort_signature(self._session)
        geometry, self.vocab = decoder_signature(*signature, graph.name)
        self._features_width = features_width(signature[1], graph.name)
        self.features: Features | None = None
        self._cache: OrtCache = (
            SharedCache(geometry, backend, self.capacity)
            if operators.cache_kind(cache_kind) == contract.CACHE_SHARED
            else ConcatCache(geometry, backend)
        )
        # Of keys and values in place, the graph's attention is GroupQueryAttention.
        self._one_text = isinstance(self._cache, SharedCache) and geometry.tensors[0].form.suffix == contract.KEY
        self._binding = self._session.io_binding()
        self._batch = 0
        self._keep = np.ones(1, np.int64)
        self._bind(contract.LOGITS_TO_KEEP, _address(self._keep), (1,))
        self._ones = np.ones(0, np.int64)
        self._ones_address = 0
        self._tokens = np.zeros((0, 0), np.int64)

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._cache.length

    def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
        """See DecoderSession.forward."""
        batch, new = self._checked(tokens, keep)
        total = self.length + new
        # One position is the common case: its buffer stays bound, only the number in it changes.
        if tokens.shape == self._tokens.shape:
            self._tokens[:] = tokens
        else:
            self._tokens = np.array(tokens, dtype=np.int64, order="C")
            self._bind(contract.INPUT_IDS, _address(self._tokens), (batch, new))
        if len(self._ones) < batch * total:
            self._ones = np.ones(batch * max(2 * total, 512), np.int64)
            self._ones_address = _address(self._ones)
        self._bind(contract.ATTENTION_MASK, self._ones_address, (batch, total))
        self._keep[0] = keep
        kept = min(keep, new) or new
        logits = self._output(contract.LOGITS, (batch, kept, self.vocab))
        features = None
        if self._features_width:
            features = self._output(contract.DRAFT_FEATURES, (batch, kept, self._features_width))
        with ort_errors(f"process {new} tokens after {self.length}"):
            self._cache.bind(self._binding, batch, new)
            self._session.run_with_iobinding(self._binding)
            self._cache.accept(self._binding, new)
        self._batch, self.features = batch, features
        return logits

    def rollback(self, length: int) -> None:
        """See DecoderSession.rollback."""
        check_rollback(length, self.length)
        self._cache.rollback(length)

    def reset(self) -> None:
        """See DecoderSession.reset."""
        self._cache.rollback(0)

    def close(self) -> None:
        """See DecoderSession.close."""
        self._cache.free()
        self._binding = self._session = self.features = None

    def caches(self) -> list[dict[str, npt.NDArray[Any]]]:
        """Copies of every layer's cache tensors for `length` tokens, by suffix, for comparison."""
        return self._cache.arrays()

    def _bind(self, name: str, address: int, shape: tuple[int, ...]) -> None:
        # What lies at the address must stay there, so each array is an attribute of the session.
        self._binding.bind_input(name, "cpu", 0, np.int64, shape, address)

    def _output(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """A new array that the next run writes an output to."""
        array = np.empty(shape, np.float32)
        self._binding.bind_output(name, "cpu", 0, np.float32, shape, _address(array))
        return array

    def _checked(self, tokens: Tokens, keep: int) -> tuple[int, int]:
        if self._session is None:
            raise SessionError("a session must be open to be used", "it was closed")
        batch, new = check_call(
            tokens, keep, vocab=self.vocab, length=self.length, capacity=self.capacity, last_batch=self._batch
        )
        if batch > 1 and new > 1 and self.length and self._one_text:
            raise SessionError(
                "ONNX Runtime's GroupQueryAttention takes several new tokens after others of one text only",
                f"there are {batch} texts, and {new} tokens of each follow {self.length}",
                "give one token of each, or the texts one by one; a bundle of the portable form takes them together",
            )
        return batch, new


def _address(array: npt.NDArray[Any]) -> int:
    """Where the array lies; quicker than array.ctypes.data."""
    address: int = array.__array_interface__["data"][0]
    return address


def open_session(
    bundle: Bundle,
    *,
    backend: str = "cpu",
    threads: int | None = None,
    capacity: int | None = None,
    operators: str = "auto",
) -> OrtSession:
    """A bundle's graph in ONNX Runtime; see session_from_bundle."""
    cache = bundle.manifest.cache
    return OrtSession(
        bundle.graph,
        cache_kind=cache.kind,
        capacity_limit=cache.capacity_limit,
        backend=backend,
        threads=threads,
        capacity=capacity,
        operators=support_for(bundle, backend, operators),
    )
