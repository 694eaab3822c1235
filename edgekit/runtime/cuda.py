"""The part of the CUDA runtime that decoding needs, by ctypes: memory, copies, streams, events and graphs.

Signatures: https://docs.nvidia.com/cuda/cuda-runtime-api/ (CUDA 12 and 13 agree on those used here). Every call is
checked. Addresses and handles are plain integers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgekit.errors import DoesNotFit, EdgekitError, SessionError

_SUCCESS, _OUT_OF_MEMORY = 0, 2
#: Errors that mean that there is no GPU to speak of: no driver, one that is too old, no device.
NO_GPU = (35, 100, 3, 34)
_COPY_DEFAULT = 4  # cudaMemcpyDefault: the addresses tell the direction
_STREAM_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1
_ATTRIBUTE_MAJOR, _ATTRIBUTE_MINOR = 75, 76  # cudaDevAttrComputeCapability…

_handle, _size, _int = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
#: Arguments of each function that is called; all return cudaError_t unless RETURNS says otherwise.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaMalloc": (_handle, _size),
    "cudaFree": (_handle,),
    "cudaMallocHost": (_handle, _size),
    "cudaFreeHost": (_handle,),
    "cudaMemcpyAsync": (_handle, _handle, _size, _int, _handle),
    "cudaMemcpy2DAsync": (_handle, _size, _handle, _size, _size, _size, _int, _handle),
    "cudaMemsetAsync": (_handle, _int, _size, _handle),
    "cudaMemGetInfo": (_handle, _handle),
    "cudaStreamCreateWithFlags": (_handle, ctypes.c_uint),
    "cudaStreamSynchronize": (_handle,),
    "cudaStreamDestroy": (_handle,),
    "cudaEventCreate": (_handle,),
    "cudaEventRecord": (_handle, _handle),
    "cudaEventSynchronize": (_handle,),
    "cudaEventElapsedTime": (_handle, _handle, _handle),
    "cudaEventDestroy": (_handle,),
    "cudaStreamBeginCapture": (_handle, _int),
    "cudaStreamEndCapture": (_handle, _handle),
    "cudaGraphInstantiateWithFlags": (_handle, _handle, ctypes.c_ulonglong),
    "cudaGraphLaunch": (_handle, _handle),
    "cudaGraphDestroy": (_handle,),
    "cudaGraphExecDestroy": (_handle,),
    "cudaGetDeviceCount": (_handle,),
    "cudaDeviceGetAttribute": (_handle, _int, _int),
    "cudaDriverGetVersion": (_handle,),
    "cudaRuntimeGetVersion": (_handle,),
    "cudaGetLastError": (),
    "cudaGetErrorName": (_int,),
    "cudaGetErrorString": (_int,),
}
RETURNS = {"cudaGetErrorName": ctypes.c_char_p, "cudaGetErrorString": ctypes.c_char_p}


class CudaError(SessionError):
    """A call of the CUDA runtime failed; `code` is its cudaError_t."""

    def __init__(self, rule: str, fact: str, next_step: str, code: int) -> None:
        super().__init__(rule, fact, next_step)
        self.code = code


@dataclass(frozen=True)
class Gpu:
    """The GPU that is current: compute capability without the dot, and memory in bytes now."""

    compute_capability: str
    free_bytes: int
    total_bytes: int


class Cuda:
    """The CUDA runtime over a loaded library.

    Raises:
        DoesNotFit: in every method, where memory ran out.
        CudaError: in every method, for any other error.
    """

    def __init__(self, library: Any, name: str) -> None:
        """`library`: has the functions of SIGNATURES; `name`: where it was found, for messages."""
        self._library = library
        self.name = name

    # Memory. Sizes are in bytes.

    def malloc(self, size: int) -> int:
        """Device memory."""
        return self._made("cudaMalloc", f"allocate {size} bytes on the GPU", size)

    def free(self, address: int) -> None:
        self._call("cudaFree", "free memory of the GPU", address)

    def host_malloc(self, size: int) -> int:
        """Pinned host memory, which the GPU copies to and from by itself."""
        return self._made("cudaMallocHost", f"allocate {size} pinned bytes", size)

    def host_free(self, address: int) -> None:
        self._call("cudaFreeHost", "free pinned memory", address)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """Enqueue a copy between any two places; host memory must be pinned and stay as it is until it is done."""
        self._call("cudaMemcpyAsync", f"copy {size} bytes", target, source, size, _COPY_DEFAULT, stream)

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int, stream: int
    ) -> None:
        """Enqueue a copy of `rows` rows of `width` bytes that begin `pitch` bytes apart."""
        self._call(
            "cudaMemcpy2DAsync", f"copy {rows} rows of {width} bytes",
            target, target_pitch, source, source_pitch, width, rows, _COPY_DEFAULT, stream,
        )  # fmt: skip

    def fill(self, address: int, value: int, size: int, stream: int) -> None:
        """Enqueue setting bytes to `value`."""
        self._call("cudaMemsetAsync", f"fill {size} bytes", address, value, size, stream)

    # Streams and events.

    def stream(self) -> int:
        """A stream that does not wait for the default one; only such a stream can be captured."""
        return self._made("cudaStreamCreateWithFlags", "make a stream", _STREAM_NON_BLOCKING)

    def synchronize(self, stream: int, doing: str = "wait for the GPU") -> None:
        """Wait for everything that was enqueued; its errors come out here."""
        self._call("cudaStreamSynchronize", doing, stream)

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", "destroy a stream", stream)

    def event(self) -> int:
        return self._made("cudaEventCreate", "make an event")

    def record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", "record an event", event, stream)

    def elapsed_s(self, first: int, last: int) -> float:
        """Seconds of GPU time between two recorded events; waits for the last."""
        self._call("cudaEventSynchronize", "wait for an event", last)
        milliseconds = ctypes.c_float()
        self._call("cudaEventElapsedTime", "read an event", ctypes.byref(milliseconds), first, last)
        return milliseconds.value / 1e3

    def destroy_event(self, event: int) -> None:
        self._call("cudaEventDestroy", "destroy an event", event)

    # Graphs.

    @contextmanager
    def capturing(self, stream: int) -> Iterator[list[int]]:
        """Record what the block enqueues on the stream instead of running it.

        Yields:
            An empty list that holds the executable graph once the block has ended without an error.
        """
        found: list[int] = []
        self._call("cudaStreamBeginCapture", "begin a capture", stream, _CAPTURE_THREAD_LOCAL)
        graph = _handle()
        try:
            yield found
        except BaseException:
            # The stream must leave its capture, whatever that says.
            self._library.cudaStreamEndCapture(stream, ctypes.byref(graph))
            self._library.cudaGetLastError()
            if graph.value:
                self._library.cudaGraphDestroy(graph.value)
            raise
        self._call("cudaStreamEndCapture", "end a capture", stream, ctypes.byref(graph))
        try:
            found.append(self._made("cudaGraphInstantiateWithFlags", "instantiate a CUDA graph", graph.value, 0))
        finally:
            self._call("cudaGraphDestroy", "destroy a CUDA graph", graph.value)

    def launch(self, graph: int, stream: int) -> None:
        """Enqueue an executable graph."""
        self._call("cudaGraphLaunch", "launch a CUDA graph", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call("cudaGraphExecDestroy", "destroy a CUDA graph", graph)

    # The machine.

    def gpu(self) -> Gpu | None:
        """The first GPU; None where there is none, or no driver that knows this runtime."""
        count = _int()
        code = self._library.cudaGetDeviceCount(ctypes.byref(count))
        if code in NO_GPU or (code == _SUCCESS and count.value == 0):
            self._library.cudaGetLastError()
            return None
        self._check(code, "count the GPUs")
        major, minor = (
            self._number("cudaDeviceGetAttribute", attribute, 0) for attribute in (_ATTRIBUTE_MAJOR, _ATTRIBUTE_MINOR)
        )
        free, total = _size(), _size()
        self._call("cudaMemGetInfo", "read the GPU's memory", ctypes.byref(free), ctypes.byref(total))
        return Gpu(f"{major}{minor}", free.value, total.value)

    def driver_version(self) -> str | None:
        """The newest CUDA that the driver knows, "13.0"; None without a driver."""
        return _version(self._number("cudaDriverGetVersion"))

    def runtime_version(self) -> str:
        """The CUDA version of this library, "13.0"."""
        return _version(self._number("cudaRuntimeGetVersion")) or "unknown"

    def _number(self, function: str, *arguments: int) -> int:
        value = _int()
        self._call(function, "read what the GPU is", ctypes.byref(value), *arguments)
        return value.value

    def _made(self, function: str, doing: str, *arguments: Any) -> int:
        """What a function puts at its first argument."""
        made = _handle()
        self._call(function, doing, ctypes.byref(made), *arguments)
        return made.value or 0

    def _call(self, function: str, doing: str, *arguments: Any) -> None:
        self._check(getattr(self._library, function)(*arguments), doing)

    def _check(self, code: int, doing: str) -> None:
        if code == _SUCCESS:
            return
        raise self._error(code, doing)

    def _error(self, code: int, doing: str) -> EdgekitError:
        # The last error stays set until it is read, and the next to look would take it for its own.
        self._library.cudaGetLastError()
        name, text = (f(code).decode() for f in (self._library.cudaGetErrorName, self._library.cudaGetErrorString))
        fact = f"CUDA could not {doing}: {text} ({name})"
        if code == _OUT_OF_MEMORY:
            return DoesNotFit(
                "the model and its cache must fit in the GPU's memory",
                fact,
                "close other programs, or use a smaller model, dtype or --max-context",
            )
        if code in NO_GPU:
            return CudaError("running an engine needs an NVIDIA GPU with a driver", fact, "edgekit doctor", code)
        return CudaError("CUDA must be able to do what decoding needs", fact, "see edgekit doctor, or report it", code)


def _version(number: int) -> str | None:
    """13000 → "13.0"; 0 is none. Source: cudaDriverGetVersion, 1000 * major + 10 * minor."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else None
