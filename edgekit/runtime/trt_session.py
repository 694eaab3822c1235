"""A decoder session over a TensorRT engine, of TensorRT or of TensorRT-RTX."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.errors import SessionError
from edgekit.runtime.cuda import Cuda
from edgekit.runtime.session import Features, Logits, Tokens
from edgekit.runtime.signature import (
    CacheGeometry,
    check_call,
    check_opening,
    check_rollback,
    decoder_signature,
    features_width,
)
from edgekit.runtime.trt_cache import ConcatCache, SharedCache, TrtCache
from edgekit.runtime.trt_decoder_engine import DecoderEngine
from edgekit.runtime.trt_engine import Context, Profile
from edgekit.runtime.trt_graphs import StepGraphs
from edgekit.runtime.trt_memory import DeviceBuffers, Pinned
from edgekit.runtime.trt_outputs import StepOutputs
from edgekit.runtime.trt_running import running

_ID = np.dtype(np.int64).itemsize
#: A mask of slots is lengthened by so many at a time: attention reads at most that many keys in vain, and the shapes of
#: as many steps are the same.
MASK_STEP = 256


class TrtSession:
    """Implements DecoderSession. Everything runs on one stream, and each call ends by waiting for it.

    B batch, S new tokens, T = length + S, K kept positions, V vocabulary. A call with more tokens than the engine
    takes at once is cut into pieces.

    Attributes:
        features: see DecoderSession.features.
    """

    name = "tensorrt"

    def __init__(
        self,
        engine: DecoderEngine,
        cuda: Cuda,
        *,
        cache_kind: str,
        capacity_limit: int,
        capacity: int | None = None,
        mask_of_slots: bool = False,
        description: str = "tensorrt",
        cuda_graph: bool = True,
    ) -> None:
        """Take over `engine`, which `close` closes.

        Args:
            cache_kind, capacity_limit: of the bundle, see OrtSession; the engine may allow fewer tokens.
            capacity: most tokens wanted; None for the limit.
            mask_of_slots: whether the attention mask may be longer than the tokens, see contract.AXIS_SLOTS.
            description: engine and versions, for people.
            cuda_graph: whether decode steps are captured where their shapes stay the same.

        Raises:
            SessionError, DoesNotFit, BundleError: see session_from_bundle.
        """
        self.capacity = check_opening(cache_kind, capacity, min(capacity_limit, engine.most_tokens))
        self._described = description
        geometry, self.vocab = decoder_signature(engine.inputs, engine.outputs, engine.name)
        self._widths = {contract.LOGITS: self.vocab}
        if width := features_width(engine.outputs, engine.name):
            self._widths[contract.DRAFT_FEATURES] = width
        self.features: Features | None = None
        self._engine: DecoderEngine | None = engine
        self._cuda = cuda
        self._stream = cuda.stream()
        if cache_kind == contract.CACHE_SHARED:
            self._cache: TrtCache = SharedCache(geometry, cuda, _slots(engine, geometry, self.capacity))
        else:
            self._cache = ConcatCache(geometry, cuda, self.capacity)
        self._mask_of_slots = mask_of_slots
        self._longest_mask = min(self._cache.slots, engine.most_tokens)
        self._graphs = StepGraphs(cuda, self._stream) if cuda_graph else None
        self._batch = 0
        #: On the GPU, for the current batch: token ids and the attention mask.
        self._inputs = DeviceBuffers(cuda)
        self._inputs_batch = 0
        self._outputs = StepOutputs(cuda, {name: (width,) for name, width in self._widths.items()})
        #: On the host: token ids, the mask, and a place for each number of positions to keep, so that what TensorRT
        #: reads from there never changes under it.
        self._ids: Pinned | None = None
        self._mask: Pinned | None = None
        self._keeps = Pinned(cuda, (engine.longest_piece + 1,), np.int64)
        self._keeps.array[:] = np.arange(len(self._keeps.array))

    @property
    def description(self) -> str:
        """Engine, versions, and why decode steps are not CUDA graphs where that was tried."""
        refused = self._graphs.refused if self._graphs else ""
        return f"{self._described}, without CUDA graphs: {refused}" if refused else self._described

    @property
    def graph_launches(self) -> int:
        """Steps that were run by a CUDA graph."""
        return self._graphs.launched if self._graphs else 0

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._cache.length

    def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
        """See DecoderSession.forward."""
        if self._engine is None:
            raise SessionError("a session must be open to be used", "it was closed")
        batch, new = check_call(
            tokens, keep, vocab=self.vocab, length=self.length, capacity=self.capacity, last_batch=self._batch
        )
        before, most = self.length, self._engine.most_new(batch)
        kept = min(keep, new) or new
        found = {name: np.empty((batch, kept, width), np.float32) for name, width in self._widths.items()}
        try:
            with running(self._cuda, self._stream, f"processing {new} tokens after {before}"):
                self._prepare(batch, most)
                for start in range(0, new, most):
                    end = min(start + most, new)
                    # The positions of this piece whose logits are wanted; at least one is computed.
                    first = max(start, new - kept)
                    piece = self._step(tokens[:, start:end], max(1, end - first))
                    if end > first:
                        for name, values in piece.items():
                            found[name][:, first - (new - kept) : end - (new - kept)] = values
        except BaseException:
            self._cache.rollback(before)
            raise
        self._batch, self.features = batch, found.get(contract.DRAFT_FEATURES)
        return found[contract.LOGITS]

    def _step(self, tokens: Tokens, kept: int) -> dict[str, npt.NDArray[np.float32]]:
        """Append tokens [B, S] that one profile takes; the outputs [B, kept, width], valid until the next step."""
        engine, ids = self._engine, self._ids
        assert engine is not None
        assert ids is not None
        batch, new = tokens.shape
        self._cache.prepare(batch, self._stream)
        columns = self._columns(new)
        shapes = {
            contract.INPUT_IDS: (batch, new),
            contract.ATTENTION_MASK: (batch, columns),
            **self._cache.shapes(batch),
        }
        engine.begin()
        profile = engine.profile_for(shapes)
        context = engine.context(profile, self._stream)
        for name, shape in shapes.items():
            context.shape(name, shape)
        self._cache.bind(context)
        self._bind(context, profile, batch, kept)
        ids.array[: batch * new] = tokens.ravel()
        if self._mask_of_slots:
            mask = self._mask_for(self.length + new, batch, columns)

        def enqueue() -> None:
            self._cuda.copy(self._inputs.addresses[0], ids.address, batch * new * _ID, self._stream)
            if self._mask_of_slots:
                self._cuda.copy(self._inputs.addresses[1], mask.address, batch * columns * _ID, self._stream)
            context.enqueue(self._stream)
            self._outputs.copy(batch * kept, self._stream)

        if self._graphs is None or new > 1:
            enqueue()
        else:
            key = (profile.index, batch, columns, *self._cache.key())
            self._graphs.run(key, enqueue, lambda: context.capturable(self._stream))
        self._cuda.synchronize(self._stream, "run the engine")
        self._cache.accept(new)
        return self._outputs.arrays((batch, kept))

    def _columns(self, new: int) -> int:
        """The length of the attention mask for a step of `new` tokens: of one token, the same for many steps."""
        total = self.length + new
        if not self._mask_of_slots or new > 1:
            return total
        return min(-(-total // MASK_STEP) * MASK_STEP, self._longest_mask)

    def _mask_for(self, total: int, batch: int, columns: int) -> Pinned:
        """The mask [B, columns] of so many tokens, on the host."""
        assert self._mask is not None
        mask = self._mask.array[: batch * columns].reshape(batch, columns)
        mask[:, :total] = 1
        mask[:, total:] = -1
        return self._mask

    def _bind(self, context: Context, profile: Profile, batch: int, kept: int) -> None:
        """Set the addresses of everything but the cache."""
        context.address(contract.INPUT_IDS, self._inputs.addresses[0])
        context.address(contract.ATTENTION_MASK, self._inputs.addresses[1])
        context.address(contract.LOGITS_TO_KEEP, self._keeps.address + kept * _ID)
        self._outputs.make_room(batch * kept, self._forget_graphs)
        self._outputs.bind(context, profile, (batch, kept))

    def _prepare(self, batch: int, most_new: int) -> None:
        """Have inputs for a batch: room for its tokens, and a mask of ones."""
        if batch == self._inputs_batch:
            return
        self._inputs_batch = 0
        self._forget_graphs()
        for pinned in (self._ids, self._mask):
            if pinned is not None:
                pinned.free()
        self._ids = self._mask = None
        slots = batch * self._longest_mask
        self._inputs.allocate([batch * most_new * _ID, slots * _ID])
        self._ids = Pinned(self._cuda, (batch * most_new,), np.int64)
        self._mask = Pinned(self._cuda, (slots,), np.int64)
        self._mask.array[:] = 1
        self._cuda.copy(self._inputs.addresses[1], self._mask.address, self._mask.bytes, self._stream)
        self._cuda.synchronize(self._stream, "write the attention mask")
        self._inputs_batch = batch

    def _forget_graphs(self) -> None:
        """Before buffers move: graphs hold their addresses."""
        if self._graphs is not None:
            self._graphs.close()

    def rollback(self, length: int) -> None:
        """See DecoderSession.rollback."""
        check_rollback(length, self.length)
        self._cache.rollback(length)

    def reset(self) -> None:
        """See DecoderSession.reset."""
        self._cache.rollback(0)

    def close(self) -> None:
        """See DecoderSession.close."""
        if self._engine is None:
            return
        self._forget_graphs()
        self._engine.close()
        self._engine = None
        self._cache.free()
        self._inputs.free()
        self._outputs.free()
        self.features = None
        for pinned in (self._ids, self._mask, self._keeps):
            if pinned is not None:
                pinned.free()
        self._cuda.destroy_stream(self._stream)

    def caches(self) -> list[dict[str, npt.NDArray[Any]]]:
        """Copies of every layer's cache tensors for `length` tokens, by suffix, for comparison."""
        return self._cache.arrays(self._stream)


def _slots(engine: DecoderEngine, geometry: CacheGeometry, capacity: int) -> int:
    """Tokens that buffers written in place have room for: what every profile takes, and at least `capacity`."""
    first = geometry.tensors[0]
    sizes = [profile.sizes(first.past, first.form.axis) for profile in engine.profiles]
    low, high = max(low for low, _ in sizes), min(high for _, high in sizes)
    slots = max(low, capacity)
    if slots > high:
        raise SessionError(
            "a context must fit into the buffers that the engine was built for",
            f"{capacity} tokens were asked for, {engine.name} takes buffers of {low} to {high}",
            f"choose --max-context {high} or less, or build it for more: edgekit build BUNDLE --device DEVICE --help",
        )
    return slots
