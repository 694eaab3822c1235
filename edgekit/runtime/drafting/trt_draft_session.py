"""The draft graph as an engine of TensorRT or of TensorRT-RTX."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.errors import SessionError
from edgekit.runtime.cuda import Cuda
from edgekit.runtime.drafting.draft_signature import draft_sizes
from edgekit.runtime.trt_engine import TrtEngine
from edgekit.runtime.trt_graphs import StepGraphs
from edgekit.runtime.trt_memory import DeviceBuffers, Pinned
from edgekit.runtime.trt_outputs import StepOutputs
from edgekit.runtime.trt_running import running

Floats = npt.NDArray[np.float32]


class TrtDraftSession:
    """Implements DraftSession. Everything runs on one stream of its own, and each draft ends by waiting for it.

    B batch, F features, n tokens, r components in all, c computed, D draft vocabulary, W earlier positions that are
    seen, N numbers kept of each, P new positions. Only B and P vary: a draft for which they are those of the draft
    before is captured as a CUDA graph, which later drafts of these sizes launch.

    Attributes:
        features, tokens, rank, components, window, kept: F, n, r, c, W, N.
        present: see DraftSession.present.
        vocabulary: int64 [D].
    """

    def __init__(
        self,
        engine: TrtEngine,
        cuda: Cuda,
        vocabulary: npt.NDArray[np.int64],
        *,
        description: str = "tensorrt",
        cuda_graph: bool = True,
    ) -> None:
        """Take over `engine`, which `close` closes.

        Args:
            vocabulary: ids of the tokens that can be drafted, int64 [D], ascending.
            description: engine and versions, for people.
            cuda_graph: whether drafts are captured.

        Raises:
            BundleError: inputs and outputs are not those of edgekit.contract, or not of this vocabulary.
            SessionError: CUDA gives no stream.
        """
        again = "build the engines again: edgekit build BUNDLE --device DEVICE --rebuild"
        sizes = draft_sizes(engine.inputs, engine.outputs, vocabulary, graph=engine.name, next_step=again)
        self.features, self.tokens = sizes.features, sizes.tokens
        self.rank, self.components = sizes.rank, sizes.components
        self.window, self.kept = sizes.window, sizes.kept
        self.present: Floats | None = None
        self.vocabulary = vocabulary
        self._sizes = sizes
        self._described = description
        self._engine: TrtEngine | None = engine
        self._cuda = cuda
        self._stream = cuda.stream()
        self._graphs = StepGraphs(cuda, self._stream) if cuda_graph else None
        #: What there is room for: inputs on the GPU in the order of `_given`, and where they come from, flat.
        self._inputs = DeviceBuffers(cuda)
        self._given: dict[str, Pinned] = {}
        self._room = 0
        made: dict[str, tuple[int, ...]] = {
            contract.DRAFT_LOG_WEIGHTS: (sizes.components,),
            contract.DRAFT_PROBABILITIES: (sizes.tokens, sizes.components, sizes.drafted),
        }
        if sizes.window:
            made[contract.DRAFT_PRESENT] = (sizes.window, sizes.kept)
        self._outputs = StepOutputs(cuda, made)

    @property
    def description(self) -> str:
        """Engine, versions, and why drafts are not CUDA graphs where that was tried."""
        refused = self._graphs.refused if self._graphs else ""
        return f"{self._described}, without CUDA graphs: {refused}" if refused else self._described

    @property
    def graph_launches(self) -> int:
        """Drafts that were made by a CUDA graph."""
        return self._graphs.launched if self._graphs else 0

    def draft(
        self, features: Floats, token: npt.NDArray[np.int64], noise: Floats | None, past: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """See DraftSession.draft.

        Raises:
            SessionError: the session is closed, the engine was built for fewer sequences, what is given has another
                shape or dtype, or the engine failed.
            BundleError: the engine would give other shapes.
            DoesNotFit: memory ran out.
        """
        if self._engine is None:
            raise SessionError("a session must be open to be used", "it was closed")
        given = self._checked(features, token, noise, past)
        batch = len(token)
        self._engine.check_batch(batch, contract.DRAFT_FEATURES)
        with running(self._cuda, self._stream, "drafting"):
            self._make_room(batch, given)
            return self._run(self._engine, batch, given)

    def _run(self, engine: TrtEngine, batch: int, given: dict[str, npt.NDArray[Any]]) -> tuple[Floats, Floats]:
        """Run it for a batch that there is room for."""
        shapes = {name: array.shape for name, array in given.items()}
        engine.begin()
        profile = engine.profile_for(shapes)
        context = engine.context(profile, self._stream)
        for (name, array), address in zip(given.items(), self._inputs.addresses, strict=True):
            context.shape(name, array.shape)
            context.address(name, address)
            self._given[name].array[: array.size] = array.ravel()
        self._outputs.bind(context, profile, (batch,))

        def enqueue() -> None:
            for (name, array), address in zip(given.items(), self._inputs.addresses, strict=True):
                self._cuda.copy(address, self._given[name].address, array.nbytes, self._stream)
            context.enqueue(self._stream)
            self._outputs.copy(batch, self._stream)

        if self._graphs is None:
            enqueue()
        else:
            key = (profile.index, *given[contract.DRAFT_TOKEN].shape)
            self._graphs.run(key, enqueue, lambda: context.capturable(self._stream))
        self._cuda.synchronize(self._stream, "run the engine")
        made = self._outputs.arrays((batch,))
        if self.window:
            self.present = made[contract.DRAFT_PRESENT].copy()
        return made[contract.DRAFT_LOG_WEIGHTS].copy(), made[contract.DRAFT_PROBABILITIES].copy()

    def _checked(
        self, features: Floats, token: npt.NDArray[np.int64], noise: Floats | None, past: Floats | None
    ) -> dict[str, npt.NDArray[Any]]:
        """The inputs by name. Raises SessionError unless they are as DraftSession.draft takes them."""
        offered: dict[str, npt.NDArray[Any] | None] = {
            contract.DRAFT_FEATURES: features,
            contract.DRAFT_TOKEN: token,
            contract.DRAFT_NOISE: noise,
            contract.DRAFT_PAST: past,
        }
        given: dict[str, npt.NDArray[Any]] = {name: array for name, array in offered.items() if array is not None}
        axes = 2 if self.window else 1
        rows = token.shape if token.ndim == axes else (1,) * axes
        wanted = {contract.DRAFT_FEATURES: ("float32", (*rows, self.features)), contract.DRAFT_TOKEN: ("int64", rows)}
        if self._sizes.noisy:
            wanted[contract.DRAFT_NOISE] = ("float32", (rows[0], self.rank))
        if self.window:
            wanted[contract.DRAFT_PAST] = ("float32", (rows[0], self.window, self.kept))
        found = {name: (str(array.dtype), array.shape) for name, array in given.items()}
        if found != wanted or min(rows) < 1:
            raise SessionError("a draft is made of what the draft graph takes", f"it got {found} instead of {wanted}")
        return given

    def _make_room(self, batch: int, given: dict[str, npt.NDArray[Any]]) -> None:
        """Have room for a batch, of as many new positions as now. Where memory runs out there is room for none."""
        sizes = {name: array.size for name, array in given.items()}
        if self._room >= batch and all(self._given[name].array.size >= size for name, size in sizes.items()):
            return
        sizes = {name: max(size, self._given[name].array.size if self._room else 0) for name, size in sizes.items()}
        batch = max(batch, self._room)
        self._forget_graphs()
        self._free()
        try:
            self._inputs.allocate([sizes[name] * array.itemsize for name, array in given.items()])
            for name, array in given.items():
                self._given[name] = Pinned(self._cuda, (sizes[name],), array.dtype)
            self._outputs.make_room(batch)
        except BaseException:
            self._free()
            raise
        self._room = batch

    def _forget_graphs(self) -> None:
        """Before buffers move: graphs hold their addresses."""
        if self._graphs is not None:
            self._graphs.close()

    def _free(self) -> None:
        """Give all buffers back."""
        self._room = 0
        self._inputs.free()
        self._outputs.free()
        while self._given:
            self._given.popitem()[1].free()

    def close(self) -> None:
        """See DraftSession.close."""
        if self._engine is None:
            return
        self._forget_graphs()
        self._engine.close()
        self._engine = None
        self._free()
        self._cuda.destroy_stream(self._stream)
