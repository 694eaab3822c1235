"""A fake of libcudart over host memory: no GPU is behind it. The real binding, edgekit.runtime.cuda, runs on top.

It is as unkind as CUDA may be. What is enqueued runs only when its stream is waited for, so that whoever reads or
changes memory too early is found out. Memory comes filled with NaN. Copies and runs must lie within live allocations.
"""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from edgekit.runtime.cuda import Cuda

INVALID_VALUE, OUT_OF_MEMORY, CAPTURE_UNSUPPORTED, LAUNCH_FAILURE, NO_DRIVER = 1, 2, 900, 719, 35
_NAMES = {
    INVALID_VALUE: "cudaErrorInvalidValue",
    OUT_OF_MEMORY: "cudaErrorMemoryAllocation",
    CAPTURE_UNSUPPORTED: "cudaErrorStreamCaptureUnsupported",
    LAUNCH_FAILURE: "cudaErrorLaunchFailure",
    NO_DRIVER: "cudaErrorInsufficientDriver",
}


class Memory(NamedTuple):
    buffer: Any
    size: int
    pinned: bool


class FakeCudart:
    """Functions of libcudart with their C signatures. `fail` makes one of them fail."""

    def __init__(self, compute_capability: tuple[int, int] = (8, 9), memory: int = 1 << 34) -> None:
        self.capability = compute_capability
        self.memory = memory
        self.live: dict[int, Memory] = {}
        self.calls: Counter[str] = Counter()
        self.queue: list[Callable[[], None]] = []
        self.capture: list[Callable[[], None]] | None = None
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.streams: set[int] = set()
        self.events: dict[int, float] = {}
        self.what_failed = ""
        self._handles = iter(range(1000, 10**9))
        self._failures: dict[str, dict[int, int]] = {}

    def cuda(self) -> Cuda:
        return Cuda(self, "fake")

    def fail(self, function: str, code: int, after: int = 0) -> None:
        """Make a later call fail: the next one, or the one after so many more."""
        self._failures.setdefault(function, {})[self.calls[function] + after + 1] = code

    def region(self, address: int, size: int, pinned: bool | None = None) -> None:
        """Insist that these bytes lie within one live allocation, of pinned or device memory."""
        for start, memory in self.live.items():
            if start <= address and address + size <= start + memory.size:
                assert pinned is None or memory.pinned == pinned, f"{address} is {'pinned' if memory.pinned else 'GPU'}"
                return
        raise AssertionError(f"{size} bytes at {address} are not within an allocation")

    def enqueue(self, work: Callable[[], None]) -> None:
        (self.queue if self.capture is None else self.capture).append(work)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)
        function = getattr(self, f"_{name}")

        def call(*arguments: Any) -> Any:
            self.calls[name] += 1
            code = self._failures.get(name, {}).pop(self.calls[name], 0)
            return code or function(*arguments) or 0

        return call

    def _new(self, reference: Any, size: int, pinned: bool) -> int:
        if self.capture is not None:
            return CAPTURE_UNSUPPORTED
        if sum(memory.size for memory in self.live.values()) + size > self.memory:
            return OUT_OF_MEMORY
        buffer = ctypes.create_string_buffer(b"\xff" * size, size)
        reference._obj.value = ctypes.addressof(buffer)
        self.live[ctypes.addressof(buffer)] = Memory(buffer, size, pinned)
        return 0

    def _release(self, address: int, pinned: bool) -> int:
        # Work that is pending on it will find it gone.
        memory = self.live.pop(address, None)
        return 0 if memory is not None and memory.pinned == pinned else INVALID_VALUE

    def _cudaMalloc(self, reference: Any, size: int) -> int:
        return self._new(reference, size, False)

    def _cudaMallocHost(self, reference: Any, size: int) -> int:
        return self._new(reference, size, True)

    def _cudaFree(self, address: int) -> int:
        return self._release(address, False)

    def _cudaFreeHost(self, address: int) -> int:
        return self._release(address, True)

    def _cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> int:
        return self._cudaMemcpy2DAsync(target, size, source, size, size, 1, kind, stream)

    def _cudaMemcpy2DAsync(
        self, target: int, to: int, source: int, fro: int, width: int, rows: int, kind: int, stream: int
    ) -> int:
        assert kind == 4
        assert stream in self.streams
        if width > to or width > fro:
            return INVALID_VALUE

        def check() -> None:
            self.region(target, (rows - 1) * to + width)
            self.region(source, (rows - 1) * fro + width)

        def work() -> None:
            check()
            data = [ctypes.string_at(source + row * fro, width) for row in range(rows)]
            for row, content in enumerate(data):
                ctypes.memmove(target + row * to, content, width)

        check()
        ends = (rows - 1) * to + width, (rows - 1) * fro + width
        assert target + ends[0] <= source or source + ends[1] <= target, "a copy onto itself"
        self.enqueue(work)
        return 0

    def _cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> None:
        assert stream in self.streams
        self.region(address, size, pinned=False)
        self.enqueue(lambda: ctypes.memset(address, value, size))  # type: ignore[arg-type,return-value]

    def _cudaMemGetInfo(self, free: Any, total: Any) -> None:
        free._obj.value = self.memory - sum(memory.size for memory in self.live.values())
        total._obj.value = self.memory

    def _cudaStreamCreateWithFlags(self, reference: Any, flags: int) -> None:
        assert flags == 1, "only a stream that does not wait for the default one can be captured"
        reference._obj.value = next(self._handles)
        self.streams.add(reference._obj.value)

    def _cudaStreamSynchronize(self, stream: int) -> int:
        assert stream in self.streams
        if self.capture is not None:
            return CAPTURE_UNSUPPORTED
        while self.queue:
            try:
                self.queue.pop(0)()
            except AssertionError:
                raise
            except Exception as error:  # noqa: BLE001 — as an engine's failure, whatever it is
                self.queue.clear()
                self.what_failed = str(error)
                return LAUNCH_FAILURE
        return 0

    def _cudaStreamDestroy(self, stream: int) -> None:
        assert not self.queue
        self.streams.remove(stream)

    def _cudaEventCreate(self, reference: Any) -> None:
        reference._obj.value = next(self._handles)

    def _cudaEventRecord(self, event: int, stream: int) -> None:
        self.enqueue(lambda: self.events.__setitem__(event, time.perf_counter()))

    def _cudaEventSynchronize(self, event: int) -> int:
        return self._cudaStreamSynchronize(next(iter(self.streams)))

    def _cudaEventElapsedTime(self, milliseconds: Any, first: int, last: int) -> None:
        milliseconds._obj.value = 1e3 * (self.events[last] - self.events[first])

    def _cudaEventDestroy(self, event: int) -> None:
        self.events.pop(event, None)

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> int:
        assert mode == 1
        if self.capture is not None:
            return INVALID_VALUE
        self.capture = []
        return 0

    def _cudaStreamEndCapture(self, stream: int, reference: Any) -> int:
        recorded, self.capture = self.capture, None
        if recorded is None:
            return INVALID_VALUE
        reference._obj.value = next(self._handles)
        self.graphs[reference._obj.value] = recorded
        return 0

    def _cudaGraphInstantiateWithFlags(self, reference: Any, graph: int, flags: int) -> None:
        assert flags == 0
        reference._obj.value = next(self._handles)
        self.graphs[reference._obj.value] = list(self.graphs[graph])

    def _cudaGraphLaunch(self, graph: int, stream: int) -> None:
        for work in self.graphs[graph]:
            self.enqueue(work)

    def _cudaGraphDestroy(self, graph: int) -> None:
        del self.graphs[graph]

    _cudaGraphExecDestroy = _cudaGraphDestroy

    def _cudaGetDeviceCount(self, reference: Any) -> int:
        reference._obj.value = 1
        return 0

    def _cudaDeviceGetAttribute(self, reference: Any, attribute: int, device: int) -> None:
        assert device == 0
        reference._obj.value = self.capability[{75: 0, 76: 1}[attribute]]

    def _cudaDriverGetVersion(self, reference: Any) -> None:
        reference._obj.value = 13000

    def _cudaRuntimeGetVersion(self, reference: Any) -> None:
        reference._obj.value = 12060

    def _cudaGetLastError(self) -> int:
        return 0

    def _cudaGetErrorName(self, code: int) -> bytes:
        return _NAMES[code].encode()

    def _cudaGetErrorString(self, code: int) -> bytes:
        return f"error {code}: {self.what_failed}".encode()
