"""Running the kernels on a GPU with NumPy arrays: operands go there and back, what was not to be written is watched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.runtime.cuda import Cuda
from edgekit.runtime.trt_memory import Pinned
from tests import gpu_tools
from tests.plugins.device_library import Kernels
from tests.plugins.host_library import CACHES, sizes_of, tt_sizes_of

Arrays = dict[str, np.ndarray]
#: Bytes after each tensor that must stay as they are.
GUARD = 512
POISON = 0xFF  # NaN in every float type
MULTIPROCESSORS = 16  # cudaDevAttrMultiProcessorCount


class DeviceMemory:
    """Tensors on the GPU, each in an allocation of its own, followed by a guard.

    Args:
        guard: bytes after each tensor; 0 where a tool watches accesses, which a guard would hide from it.
    """

    def __init__(self, cuda: Cuda, guard: int = GUARD) -> None:
        self.cuda, self.guard = cuda, guard
        self.stream = cuda.stream()
        self.addresses: dict[str, int] = {}
        self._kinds: dict[str, tuple[tuple[int, ...], Any, int]] = {}
        self._allocated: list[int] = []

    def __enter__(self) -> DeviceMemory:
        return self

    def __exit__(self, *_: object) -> None:
        for address in self._allocated:
            self.cuda.free(address)
        self.cuda.destroy_stream(self.stream)

    def blank(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        """Room for a tensor. With a guard all of it is NaN; without, it is left as the allocation has it."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        address = self.cuda.malloc(max(size + self.guard, 1))
        self._allocated.append(address)
        self.addresses[name], self._kinds[name] = address, (shape, kind, size)
        if self.guard:
            self.cuda.fill(address, POISON, size + self.guard, self.stream)

    def put(self, name: str, array: np.ndarray) -> None:
        """A copy of an array."""
        self.blank(name, array.shape, array.dtype)
        if array.size:
            pinned = Pinned(self.cuda, (array.nbytes,), np.uint8)
            pinned.array[...] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self.cuda.copy(self.addresses[name], pinned.address, array.nbytes, self.stream)
            self.cuda.synchronize(self.stream)
            pinned.free()

    def get(self, name: str) -> np.ndarray:
        """The tensor as it is now, once everything enqueued has run. AssertionError where its guard was written to."""
        shape, kind, size = self._kinds[name]
        pinned = Pinned(self.cuda, (size + self.guard,), np.uint8)
        self.cuda.copy(pinned.address, self.addresses[name], size + self.guard, self.stream)
        self.cuda.synchronize(self.stream)
        content = pinned.array.copy()
        pinned.free()
        assert (content[size:] == POISON).all(), f"something was written behind {name}"
        return content[:size].view(kind).reshape(shape)

    def check_guards(self) -> None:
        """AssertionError where something was written behind a tensor."""
        for name in self.addresses:
            self.get(name)


def multiprocessors(cuda: Cuda) -> int:
    """Of the first GPU."""
    return cuda._number("cudaDeviceGetAttribute", MULTIPROCESSORS, 0)


class Call:
    """One operator call over memory that holds its operands.

    Args:
        alias: in place, past and present are one buffer; else the launcher has to copy.
        splits: of tpa_attention; 0 for the launcher's choice.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        stem: str,
        attributes: Mapping[str, Any],
        inputs: Arrays,
        *,
        in_place: bool,
        splits: int = 0,
        alias: bool = True,
    ) -> None:
        self.memory, self.stem = memory, stem
        self.kernels = Kernels(gpu_tools.gpu().compute_capability)
        self.scales = (attributes.get("scale", 1.0), attributes.get("value_scale", 1.0))
        for name, array in inputs.items():
            memory.put(name, array)
        self.addresses = {name: memory.addresses[name] for name in inputs}
        #: Name of each output, and of the tensor that holds it.
        self.outputs: dict[str, str] = {}
        self._in_place, self._alias, self._splits = in_place, alias, splits
        getattr(self, f"_{stem}")(attributes, inputs)
        for name, tensor in self.outputs.items():
            self.addresses[name] = memory.addresses[tensor]
        if (why := self.kernels.problem(stem, self.dtype, self.sizes)) is not None:
            raise AssertionError(f"{stem} refuses {self.sizes}: {why}")
        memory.blank("workspace", (self.kernels.workspace_bytes(stem, self.dtype, self.sizes),), np.uint8)

    def enqueue(self, stream: int | None = None) -> None:
        """Launch; AssertionError with CUDA's words where it refuses."""
        memory = self.memory
        status = self.kernels.launch(
            self.stem,
            self.dtype,
            self.sizes,
            self.addresses,
            stream=memory.stream if stream is None else stream,
            workspace=memory.addresses["workspace"],
            scales=self.scales,
        )
        assert status == 0, f"launching {self.stem}: {memory.cuda._error(status, 'launch').fact}"

    def results(self) -> Arrays:
        """Outputs by name, when all has run; guards looked at."""
        self.memory.cuda.synchronize(self.memory.stream, f"run {self.stem}")
        self.memory.check_guards()
        return {name: self.memory.get(tensor) for name, tensor in self.outputs.items()}

    def _output(self, name: str, shape: tuple[int, ...], past: str | None = None) -> None:
        if past is not None and self._in_place and self._alias:
            self.outputs[name] = past
        else:
            self.memory.blank(name, shape, self._generic)
            self.outputs[name] = name

    def _tpa_append(self, attributes: Mapping[str, Any], inputs: Arrays) -> None:
        past, new = inputs["past"], inputs["new"]
        self._generic, self.dtype = new.dtype, new.dtype.name
        total = inputs["attention_mask"].shape[1]
        slots = past.shape[1] if self._in_place else total
        del self.addresses["attention_mask"]  # the launcher takes the length by value
        row_bytes = new.shape[2] * new.shape[3] * new.itemsize
        names = ("batch", "fresh", "total", "past_slots", "present_slots", "row_bytes")
        given = (new.shape[0], new.shape[1], total, past.shape[1], slots, row_bytes)
        self.sizes = dict(zip(names, given, strict=True))
        self._output("present", (past.shape[0], slots, *past.shape[2:]), "past")

    def _tpa_attention(self, attributes: Mapping[str, Any], inputs: Arrays) -> None:
        self._generic, self.dtype = inputs["b_v"].dtype, inputs["b_v"].dtype.name
        self.sizes = sizes_of(dict(attributes), inputs, in_place=self._in_place)
        self.sizes |= {"multiprocessors": multiprocessors(self.memory.cuda), "splits": self._splits}
        batch, fresh, _, value_size = inputs["b_v"].shape
        self._output("output", (batch, fresh, self.sizes["heads"], value_size))
        for name in CACHES:
            past = inputs.get(f"past_{name}")
            if past is not None:
                shape = (batch, self.sizes["present_slots"], *past.shape[2:])
                self._output(f"present_{name}", shape, f"past_{name}")

    def _tt_sparse_linear(self, attributes: Mapping[str, Any], inputs: Arrays) -> None:
        x = inputs["x"]
        self._generic, self.dtype = x.dtype, x.dtype.name
        self.sizes = tt_sizes_of(attributes, inputs)
        self._output("y", (*x.shape[:2], self.sizes["outputs"]))


def run(
    stem: str,
    attributes: Mapping[str, Any],
    inputs: Arrays,
    *,
    in_place: bool,
    splits: int = 0,
    alias: bool = True,
    guard: int = GUARD,
) -> Arrays:
    """Outputs by name; in place, what the buffers hold afterwards."""
    with DeviceMemory(gpu_tools.cuda(), guard) as memory:
        call = Call(memory, stem, attributes, inputs, in_place=in_place, splits=splits, alias=alias)
        call.enqueue()
        return call.results()
