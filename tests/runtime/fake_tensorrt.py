"""A fake of TensorRT's execution API: the engine is ONNX Runtime on the CPU, over the memory of a fake CUDA.

No TensorRT and no GPU is behind it. It computes what the graph says, and holds its caller to TensorRT's rules: every
input has a shape within the profile and an address, memory is live and large enough, inputs that decide shapes lie on
the host, past and present are one buffer where the engine writes in place and two where it does not.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from edgekit import contract
from edgekit.build.profile import AxisRange
from edgekit.runtime.trt_decoder_engine import DecoderEngine
from edgekit.runtime.trt_engine import Engine
from tests.runtime.fake_cuda import FakeCudart

_TYPES = {
    "tensor(float)": ("FLOAT", np.float32),
    "tensor(float16)": ("HALF", np.float16),
    "tensor(int64)": ("INT64", np.int64),
}
Axes = Mapping[str, AxisRange]


class _Severity(Enum):
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class ILogger:
    Severity = _Severity


class TensorIOMode(Enum):
    INPUT, OUTPUT = range(2)


class TensorLocation(Enum):
    DEVICE, HOST = range(2)


class ExecutionContextAllocationStrategy(Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class FakeTensorRT:
    """The module `tensorrt`, as far as the session uses it.

    Attributes:
        engines: what a file's content deserialises to.
        plugins: (name, version, namespace) that a library registers, by its path.
    """

    ILogger = ILogger
    TensorIOMode = TensorIOMode
    TensorLocation = TensorLocation
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy

    def __init__(self, version: str = "10.3.0.30") -> None:
        self.__version__ = version
        self.engines: dict[bytes, Callable[[], FakeEngine]] = {}
        self.plugins: dict[str, list[tuple[str, str, str]]] = {}
        self.deserialised: list[bytes] = []

    def Runtime(self, logger: Any) -> FakeRuntime:
        return FakeRuntime(self, logger)


class Creator(NamedTuple):
    name: str
    plugin_version: str
    plugin_namespace: str


class FakeRuntime:
    """An IRuntime and its IPluginRegistry."""

    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        self.trt, self.logger = trt, logger
        self.all_creators: list[Creator] = []

    def get_plugin_registry(self) -> FakeRuntime:
        return self

    def load_library(self, path: str) -> object | None:
        if path not in self.trt.plugins:
            self.logger.log(_Severity.ERROR, f"cannot open {path}")
            return None
        self.all_creators += [Creator(*plugin) for plugin in self.trt.plugins[path]]
        return object()

    def deserialize_cuda_engine(self, content: Any) -> FakeEngine | None:
        data = bytes(content)
        self.trt.deserialised.append(data)
        if data not in self.trt.engines:
            self.logger.log(_Severity.ERROR, "Serialization (magic tag)\nIn throwUnlessHeaderOk")
            return None
        return self.trt.engines[data]()


class FakeEngine:
    """An ICudaEngine.

    Args:
        axes: of each profile, the sizes of every axis by its name.
        graph_capture: whether runs can be captured.
    """

    def __init__(self, gpu: FakeCudart, graph: Path, axes: Sequence[Axes], graph_capture: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self.gpu, self.axes, self.graph_capture = gpu, axes, graph_capture
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.tensors = self.inputs | self.outputs
        self.is_decoder = contract.LOGITS_TO_KEEP in self.inputs
        self.in_place = self.is_decoder and self._writes_in_place()
        self.contexts: list[FakeContext] = []
        self.log: list[str] = []

    def _writes_in_place(self) -> bool:
        suffix = next(name for name in self.inputs if name.startswith("past_key_values.0.")).rpartition(".")[2]
        past, present = (of(0, suffix) for of in (contract.past_name, contract.present_name))
        return bool(self.inputs[past].shape == self.outputs[present].shape)

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.axes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return f"DataType.{_TYPES[self.tensors[name].type][0]}"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        axes = self.axes[profile]
        ranges = [
            AxisRange(size, size, size) if isinstance(size, int) else axes[size] for size in self.inputs[name].shape
        ]
        return [tuple(getattr(r, end) for r in ranges) for end in ("smallest", "usual", "largest")]

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> FakeContext:
        assert strategy is ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


class FakeContext:
    """An IExecutionContext."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.gpu = engine, engine.gpu
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.ran: set[tuple[tuple[int, ...], ...]] = set()
        self.set_calls = 0
        self.runs = 0

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream in self.gpu.streams
        others = [context for context in self.engine.contexts if context is not self]
        assert all(context.profile != index for context in others), "two contexts share a profile"
        self.profile = index
        self.shapes.clear()
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        self.set_calls += 1
        low, _, high = self.engine.get_tensor_profile_shape(name, self.profile)
        if len(low) != len(shape) or not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return False
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.set_calls += 1
        self.addresses[name] = address
        return name in self.engine.tensors and address != 0

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else self._sizes()[size] for size in self.engine.tensors[name].shape)

    def _sizes(self) -> dict[str, int]:
        """Every axis by its name, from the shapes that are set."""
        sizes: dict[str, int] = {}
        for name, shape in self.shapes.items():
            for axis, size in zip(self.engine.inputs[name].shape, shape, strict=True):
                if isinstance(axis, str):
                    assert sizes.setdefault(axis, size) == size, f"{axis} is {sizes[axis]} and {size}"
        if not self.engine.is_decoder:
            return sizes
        kept = min(self._kept(), sizes[contract.AXIS_SEQUENCE])
        return sizes | {contract.AXIS_KEPT: kept or sizes[contract.AXIS_SEQUENCE]}

    def _kept(self) -> int:
        """The input that decides a shape is read on the host."""
        address = self.addresses[contract.LOGITS_TO_KEEP]
        self.gpu.region(address, 8, pinned=True)
        return ctypes.c_int64.from_address(address).value

    def execute_async_v3(self, stream: int) -> bool:
        assert stream in self.gpu.streams
        engine, shapes = self.engine, {name: self.get_tensor_shape(name) for name in self.engine.tensors}
        assert self.shapes.keys() == engine.inputs.keys() - {contract.LOGITS_TO_KEEP}, "an input has no shape"
        assert self.addresses.keys() == engine.tensors.keys(), "a tensor has no address"
        kept = self._checked_kept(shapes) if engine.is_decoder else None
        key = tuple(shapes.values())
        if self.gpu.capture is not None and (not engine.graph_capture or key not in self.ran):
            return False
        self.ran.add(key)
        addresses = dict(self.addresses)
        self._check(addresses, shapes)
        self.gpu.enqueue(lambda: self._run(addresses, shapes, kept))
        return True

    def _checked_kept(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """What a decoder's input that decides a shape says, within its profile, where the lengths agree."""
        sizes, kept = self._sizes(), self._kept()
        if not self.engine.in_place:
            total = shapes[contract.ATTENTION_MASK][1]
            assert sizes[contract.AXIS_PAST] + sizes[contract.AXIS_SEQUENCE] == total
        assert self.profile is not None
        values = self.engine.axes[self.profile][contract.LOGITS_TO_KEEP]
        assert values.smallest <= kept <= values.largest
        return kept

    def _bytes(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
        return math.prod(shapes[name]) * np.dtype(_TYPES[self.engine.tensors[name].type][1]).itemsize

    def _check(self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
        regions = {}
        for name, address in addresses.items():
            size = self._bytes(name, shapes)
            self.gpu.region(address, size, pinned=name == contract.LOGITS_TO_KEEP)
            regions[name] = (address, address + size)
        for name in self.engine.outputs:
            for other, (start, end) in regions.items():
                if other == name:
                    continue
                alias = self.engine.in_place and other.replace("past_key_values", "present") == name
                if alias:
                    assert addresses[name] == addresses[other], f"{name} must be {other}"
                else:
                    assert regions[name][1] <= start or end <= regions[name][0], f"{name} lies over {other}"

    def _run(self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]], kept: int | None) -> None:
        self._check(addresses, shapes)
        feeds = {}
        for name, value in self.engine.inputs.items():
            dtype = _TYPES[value.type][1]
            data = ctypes.string_at(addresses[name], self._bytes(name, shapes))
            feeds[name] = np.frombuffer(data, dtype).reshape(shapes[name])
        if kept is not None:
            feeds[contract.LOGITS_TO_KEEP] = np.array([kept], np.int64)
        self.runs += 1
        for name, array in zip(self.engine.outputs, self.engine.session.run(None, feeds), strict=True):
            assert array.shape == shapes[name], f"{name} is {array.shape}, {shapes[name]} was announced"
            ctypes.memmove(addresses[name], np.ascontiguousarray(array).tobytes(), array.nbytes)


def fake_engine(
    gpu: FakeCudart,
    graph: Path,
    axes: Sequence[Axes],
    kind: type[Engine] = DecoderEngine,  # type: ignore[assignment]
    **options: Any,
) -> tuple[Engine, FakeEngine]:
    """The engine as a session opens it, and the fake below it."""
    fake = FakeEngine(gpu, graph, axes, **options)
    return kind(FakeTensorRT(), fake, graph.name), fake
