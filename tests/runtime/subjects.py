"""What the tests of decoder sessions run on: each engine with each kind of cache it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import contract
from edgekit.build.profile import decoder_axes
from edgekit.bundle import Bundle
from edgekit.runtime.ort_cache import SharedCache
from edgekit.runtime.ort_session import OrtSession
from edgekit.runtime.session import session_from_bundle
from edgekit.runtime.trt_session import TrtSession
from tests.runtime.fake_cuda import FakeCudart
from tests.runtime.fake_tensorrt import FakeEngine, fake_engine
from tests.runtime.tiny_decoder import HEAD_DIM, KV_HEADS, LAYERS, MAX_POSITION

KINDS = (contract.CACHE_SHARED, contract.CACHE_CONCAT)
#: Less than the tests' longest call, so that sessions have to cut it into pieces.
MOST_NEW = 256


class Subject(ABC):
    """An engine, a model and a kind of cache.

    Attributes:
        name: the session's; words: parts of its description.
        vocab, limit: of the model.
        tolerance: of logits, absolute.
        layers: of the cache.
        tokens: int64 [1, 600], random.
    """

    name: str
    words: tuple[str, ...]
    kind: str
    tolerance = 2e-4
    vocab = 300
    limit = MAX_POSITION
    layers = LAYERS

    @property
    def tokens(self) -> np.ndarray:
        return np.random.default_rng(0).integers(0, self.vocab, (1, 600))

    def cache_shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        """A layer's cache tensors for a batch of 1, by suffix."""
        return dict.fromkeys(("key", "value"), (1, KV_HEADS, length, HEAD_DIM))

    @abstractmethod
    def reference(self) -> Any:
        """A session of another engine over the same weights."""

    @abstractmethod
    def open(self, **arguments: Any) -> Any:
        """A session; `capacity` and what else its class takes."""

    @abstractmethod
    def poison(self, session: Any) -> None:
        """Fill the memory of the cache beyond the tokens with NaN, where the session has such memory."""


class OrtSubject(Subject):
    name = "onnxruntime-cpu"
    words = ("CPUExecutionProvider", "1 thread")

    def __init__(self, graphs: dict[str, Path], kind: str) -> None:
        self.graphs, self.kind = graphs, kind

    def open(self, **arguments: Any) -> OrtSession:
        return ort_session(self.graphs, self.kind, **arguments)

    def reference(self) -> OrtSession:
        """With the other kind of cache: other operators of ONNX Runtime."""
        return ort_session(self.graphs, next(kind for kind in KINDS if kind != self.kind))

    def poison(self, session: OrtSession) -> None:
        cache = session._cache
        if not isinstance(cache, SharedCache):
            return
        assert cache.buffers
        for buffer in cache.buffers:
            array = buffer.numpy()
            array[:, :, session.length :] = np.nan
            buffer.update_inplace(array)
            assert np.isnan(buffer.numpy()[:, :, session.length :]).all()


class FakeTrtSubject(Subject):
    """The TensorRT session over fakes of CUDA and TensorRT: its bookkeeping is real, no GPU is."""

    name = "tensorrt"
    words = ("a fake",)

    def __init__(self, graphs: dict[str, Path], kind: str) -> None:
        self.graphs, self.graph, self.kind = graphs, graphs[kind], kind
        self.gpu = FakeCudart()
        self.engine: FakeEngine

    def axes(self) -> list[dict[str, Any]]:
        return [decoder_axes(batch=3, new=new, context=self.limit) for new in (MOST_NEW, 1)]

    def open(self, **arguments: Any) -> TrtSession:
        options = {name: arguments.pop(name) for name in ("axes", "graph_capture") if name in arguments}
        engine, self.engine = fake_engine(self.gpu, self.graph, **{"axes": self.axes(), **options})
        return TrtSession(
            engine,
            self.gpu.cuda(),
            cache_kind=self.kind,
            description="a fake",
            **{"capacity_limit": self.limit, **arguments},
        )

    def reference(self) -> OrtSession:
        return ort_session(self.graphs, self.kind)

    def poison(self, session: TrtSession) -> None:
        poison_beyond(session)


class ExportedSubject(FakeTrtSubject):
    """The fakes over a model in the form that TensorRT gets, exported as any other."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.vocab = bundle.manifest.model.vocab_size
        self.limit = bundle.manifest.cache.capacity_limit
        self.layers = bundle.manifest.model.layers
        super().__init__({bundle.manifest.cache.kind: bundle.graph}, bundle.manifest.cache.kind)

    @property
    def mask_of_slots(self) -> bool:
        return contract.AXIS_SLOTS in self.bundle.manifest.graph.inputs[1]["shape"]

    def cache_shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        found = {}
        for value in self.bundle.manifest.graph.inputs:
            if value["name"].startswith("past_key_values.0."):
                suffix, shape = value["name"].rpartition(".")[2], list(value["shape"])
                shape[0], shape[contract.SEQUENCE_AXES[suffix]] = 1, length
                found[suffix] = tuple(shape)
        return found

    def open(self, **arguments: Any) -> TrtSession:
        return super().open(**{"mask_of_slots": self.mask_of_slots, **arguments})

    def reference(self) -> Any:
        return session_from_bundle(self.bundle, threads=1)

    def poison(self, session: TrtSession) -> None:
        """Where the mask covers slots beyond the tokens, with finite numbers: they are multiplied by zero."""
        poison_beyond(session, 0x4B if self.mask_of_slots else 0xFF)


class RealTrtSubject(ExportedSubject):
    """A real engine on a real GPU, built there; the bodies of the tests are the very same."""

    words = ("CUDA", "engine")
    #: TensorRT multiplies float32 on tensor cores, with 10 bits of mantissa, unless it is told not to.
    tolerance = 5e-2

    def open(self, **arguments: Any) -> TrtSession:
        session: TrtSession = session_from_bundle(self.bundle, backend="tensorrt", **arguments)
        return session


def ort_session(graphs: dict[str, Path], kind: str, **arguments: Any) -> OrtSession:
    options = {"capacity_limit": MAX_POSITION, "threads": 1, **arguments}
    return OrtSession(graphs[kind], cache_kind=kind, **options)


def poison_beyond(session: TrtSession, byte: int = 0xFF) -> None:
    """Write such bytes over everything in the buffers of the cache but the first `length` tokens; 0xff makes NaN."""
    cache, stream = session._cache, session._stream
    item = np.dtype(cache.geometry.dtype).itemsize
    for index, tensor in enumerate(cache.geometry.tensors):
        address, laid_out = cache.place(index)
        shape = tensor.form.shape(session._batch, laid_out)
        row = int(np.prod(shape[tensor.form.axis + 1 :])) * item
        for r in range(int(np.prod(shape[: tensor.form.axis]))):
            start = address + (r * laid_out + session.length) * row
            if laid_out > session.length:
                session._cuda.fill(start, byte, (laid_out - session.length) * row, stream)
        if len(cache._buffers.addresses) == 2 * len(cache.geometry.tensors):
            other = next(a for a in cache._buffers.addresses[2 * index : 2 * index + 2] if a != address)
            session._cuda.fill(other, byte, cache._bytes(tensor, session._batch), stream)
    session._cuda.synchronize(stream)


SUBJECTS = {"onnxruntime": OrtSubject, "tensorrt-fake": FakeTrtSubject}
