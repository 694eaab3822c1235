"""A TensorRT engine, opened: its tensors, its profiles, and an execution context for each profile.

The execution API is that of TensorRT 10.3 and newer and of TensorRT-RTX, which share it; where only one of them has
something, it is looked for by name. The module is an argument, so that nothing here imports it.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgekit.contract import TensorSignature
from edgekit.errors import BundleError, SessionError
from edgekit.runtime.trt_log import logger

Shape = tuple[int, ...]

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Profile:
    """An optimisation profile: the smallest and the largest shape of each input, by its name."""

    index: int
    ranges: Mapping[str, tuple[Shape, Shape]]

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether it serves inputs of these shapes."""
        return all(
            len(shape) == len(self.ranges[name][0])
            and all(low <= size <= high for low, size, high in zip(*self._around(name, shape), strict=True))
            for name, shape in shapes.items()
        )

    def _around(self, name: str, shape: Shape) -> tuple[Shape, Shape, Shape]:
        low, high = self.ranges[name]
        return low, shape, high

    def sizes(self, name: str, axis: int) -> tuple[int, int]:
        """The smallest and the largest size of an axis."""
        low, high = self.ranges[name]
        return low[axis], high[axis]


class Context:
    """An execution context of one profile that remembers what is set, so that a step sets only what changed."""

    def __init__(self, context: Any, reason: Any) -> None:
        self._context, self._reason = context, reason
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}

    def shape(self, name: str, shape: Shape) -> None:
        """Set an input's shape."""
        if self._shapes.get(name) != shape:
            self._shapes.pop(name, None)
            self._require(self._context.set_input_shape(name, shape), f"take {name} of shape {list(shape)}")
            self._shapes[name] = shape

    def address(self, name: str, address: int) -> None:
        """Set where an input or output lies."""
        if self._addresses.get(name) != address:
            self._addresses.pop(name, None)
            self._require(self._context.set_tensor_address(name, address), f"take the address of {name}")
            self._addresses[name] = address

    def output_shape(self, name: str) -> Shape:
        """The shape of an output that follows from what is set."""
        return tuple(self._context.get_tensor_shape(name))

    def enqueue(self, stream: int) -> None:
        """Run on the stream, without waiting for it."""
        self._require(self._context.execute_async_v3(stream), "run the engine")

    def capturable(self, stream: int) -> bool:
        """Whether TensorRT says that a run can be captured; where it has no such question, the capture itself tells."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return True if ask is None else bool(ask(stream))

    def _require(self, done: bool, doing: str) -> None:
        if not done:
            raise SessionError(f"TensorRT must be able to {doing}", self._reason())


class TrtEngine:
    """A deserialised engine, whatever its graph, with a context for each of its profiles, made when first used.

    Activations live in a context's own memory, sized for its profile: the decode profile's is small, and the two
    contexts never wait for each other's memory to be allocated again.
    """

    def __init__(self, trt: Any, engine: Any, name: str, runtime: Any = None) -> None:
        """`trt`: the module; `engine`: its ICudaEngine; `name`: for messages; `runtime`: must outlive the engine."""
        self.name = name
        self._trt, self._engine, self.runtime = trt, engine, runtime
        self._log = logger(trt)
        self._contexts: dict[int, Context] = {}
        tensors = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        modes = {tensor: engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT for tensor in tensors}
        self.inputs = [self._signature(tensor) for tensor in tensors if modes[tensor]]
        self.outputs = [self._signature(tensor) for tensor in tensors if not modes[tensor]]
        #: The tightest first; in the engine's order where a subclass says nothing else.
        self.profiles = [self._profile(i) for i in range(engine.num_optimization_profiles)]

    def _signature(self, name: str) -> TensorSignature:
        dtype = str(self._engine.get_tensor_dtype(name)).rsplit(".", 1)[-1]
        return TensorSignature(name, _DTYPES.get(dtype, dtype.lower()), tuple(self._engine.get_tensor_shape(name)))

    def _profile(self, index: int) -> Profile:
        ranges = {}
        for tensor in self.inputs:
            low, _, high = self._engine.get_tensor_profile_shape(tensor.name, index)
            # Of an input that does not vary, only the engine's own shape is to be relied on.
            fixed = tuple(int(size) for size in tensor.shape)
            varies = any(size < 0 for size in fixed)
            ranges[tensor.name] = (tuple(low), tuple(high)) if varies else (fixed, fixed)
        return Profile(index, ranges)

    def check_batch(self, batch: int, name: str) -> None:
        """Refuse a batch that no profile serves, by the first axis of input `name`. Raises SessionError."""
        most = max(profile.sizes(name, 0)[1] for profile in self.profiles)
        if batch > most:
            raise SessionError(
                "a batch must be one that the engine was built for",
                f"{batch} sequences were given, {self.name} serves {most} at most",
                "build it for more: edgekit build BUNDLE --device DEVICE --max-batch-size N",
            )

    def profile_for(self, shapes: Mapping[str, Shape]) -> Profile:
        """The tightest profile that serves these shapes. Raises SessionError where none does."""
        for profile in self.profiles:
            if profile.fits(shapes):
                return profile
        given = ", ".join(f"{name} {list(shape)}" for name, shape in list(shapes.items())[:3])
        raise SessionError(
            "the shapes of a step must be within a profile of the engine",
            f"{self.name} has none for {given}",
            "build it for longer prompts or contexts: edgekit build BUNDLE --device DEVICE --help",
        )

    def begin(self) -> None:
        """Forget TensorRT's earlier errors."""
        self._log.begin()

    def context(self, profile: Profile, stream: int) -> Context:
        """The profile's context. Raises SessionError where TensorRT cannot make it."""
        if profile.index not in self._contexts:
            made = self._made_context()
            if made is None or not made.set_optimization_profile_async(profile.index, stream):
                raise SessionError(
                    "an engine needs a context for each of its profiles",
                    f"{self.name}, profile {profile.index}: {self._log.reason()}",
                    "close other programs that use the GPU's memory; edgekit doctor",
                )
            self._contexts[profile.index] = Context(made, self._log.reason)
        return self._contexts[profile.index]

    def _made_context(self) -> Any:
        strategy = self._trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        specialisation = getattr(self._trt, "DynamicShapesKernelSpecializationStrategy", None)
        if specialisation is None:
            return self._engine.create_execution_context(strategy)
        # TensorRT-RTX would compile kernels for every length of the context in turn, and each is met once.
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.dynamic_shapes_kernel_specialization_strategy = specialisation.NONE
        return self._engine.create_execution_context(config)

    def close(self) -> None:
        """Give contexts, engine and runtime back, in that order."""
        self._contexts.clear()
        self._engine = None
        self.runtime = None


Engine = TypeVar("Engine", bound=TrtEngine)


def open_engine(kind: type[Engine], trt: Any, file: Path, libraries: Sequence[Path] = ()) -> Engine:
    """Deserialise an engine of a kind, after loading the libraries of its plugins. Their hashes are checked before: see
    edgekit.runtime.engine_compatibility.

    Raises:
        SessionError: a library does not load.
        BundleError: TensorRT does not take the engine, or it is not of this kind.
    """
    log = logger(trt)
    log.begin()
    runtime = trt.Runtime(log)
    for library in libraries:
        if runtime.get_plugin_registry().load_library(str(library)) is None:
            raise SessionError(
                "a plugin library must load",
                f"{library}: {log.reason()}",
                "build the engine again on this machine: edgekit build BUNDLE --device DEVICE --rebuild",
            )
    # Mapped, so that the file's bytes need not lie in memory twice.
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise BundleError(
            "TensorRT must take the engine",
            f"{file}: {log.reason()}",
            "build it again on this machine: edgekit build BUNDLE --device DEVICE --rebuild",
        )
    return kind(trt, engine, file.name, runtime)
