"""Memory that a TensorRT session binds: on the GPU, and pinned on the host."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.runtime.cuda import Cuda


class DeviceBuffers:
    """Several device buffers that are allocated and freed together."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.addresses: list[int] = []

    def allocate(self, sizes: Sequence[int]) -> None:
        """Replace all by buffers of these sizes in bytes; where memory runs out, none is left. Raises DoesNotFit."""
        self.free()
        try:
            for size in sizes:
                # TensorRT wants an address even where a tensor is empty.
                self.addresses.append(self._cuda.malloc(max(size, 1)))
        except BaseException:
            self.free()
            raise

    def free(self) -> None:
        """Give all back."""
        while self.addresses:
            self._cuda.free(self.addresses.pop())


class Pinned:
    """A pinned host array; the GPU copies from and to it by itself, so nothing may move or free it meanwhile."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._cuda = cuda
        count, kind = int(np.prod(shape)), np.dtype(dtype)
        self.bytes = count * kind.itemsize
        self.address = cuda.host_malloc(max(self.bytes, 1))
        memory = (ctypes.c_byte * max(self.bytes, 1)).from_address(self.address)
        self.array: npt.NDArray[Any] = np.frombuffer(memoryview(memory), kind, count).reshape(shape)

    def free(self) -> None:
        """Give it back; the array must not be used afterwards."""
        if self.address:
            self._cuda.host_free(self.address)
            self.address = 0
            self.array = np.empty(0)
