"""Where a TensorRT session keeps earlier tokens: in buffers written in place, or in two that take turns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.runtime.cuda import Cuda
from edgekit.runtime.signature import BoundTensor, CacheGeometry, first_tokens
from edgekit.runtime.trt_engine import Context, Shape
from edgekit.runtime.trt_memory import DeviceBuffers, Pinned


class TrtCache(ABC):
    """Binds past and present to a context, and keeps the tokens between runs."""

    def __init__(self, geometry: CacheGeometry, cuda: Cuda, slots: int) -> None:
        """`slots`: tokens that every buffer has room for."""
        self.geometry = geometry
        self.slots = slots
        self.length = 0
        self._cuda = cuda
        self._batch = 0
        #: Counts allocations.
        self._generation = 0
        self._buffers = DeviceBuffers(cuda)

    def prepare(self, batch: int, stream: int) -> None:
        """Have memory for a batch, and the first `length` tokens where `shapes` says. Raises DoesNotFit."""
        if batch != self._batch:  # only after a reset: see TrtSession.forward
            self.free()
            self._generation += 1
            self._allocate(batch, stream)
            self._batch = batch

    @abstractmethod
    def _allocate(self, batch: int, stream: int) -> None:
        """Allocate buffers for a batch."""

    @abstractmethod
    def shapes(self, batch: int) -> dict[str, Shape]:
        """The shapes of the past inputs in the next step."""

    @abstractmethod
    def bind(self, context: Context) -> None:
        """Set the addresses of past and present for the next step."""

    @abstractmethod
    def accept(self, new: int) -> None:
        """Take over what a step has made of `new` more tokens."""

    @abstractmethod
    def key(self) -> tuple[int, ...]:
        """Changes with every shape and address that `bind` sets; what was captured for one key serves no other."""

    @abstractmethod
    def place(self, index: int) -> tuple[int, int]:
        """Where tensor `index` lies, and for how many tokens it is laid out there."""

    def rollback(self, length: int) -> None:
        """Keep the first `length` tokens; after 0 the next batch may be another."""
        self.length = length

    def free(self) -> None:
        """Give the memory back."""
        self._buffers.free()
        self.length, self._batch = 0, 0

    def arrays(self, stream: int) -> list[dict[str, npt.NDArray[Any]]]:
        """Copies of every layer's cache tensors for `length` tokens, by suffix, for comparison."""
        arrays = []
        for index, tensor in enumerate(self.geometry.tensors if self.length else ()):
            address, laid_out = self.place(index)
            host = Pinned(self._cuda, tensor.form.shape(self._batch, laid_out), self.geometry.dtype)
            try:
                self._cuda.copy(host.address, address, host.bytes, stream)
                self._cuda.synchronize(stream, "read the cache")
                arrays.append(host.array[first_tokens(self.length, tensor.form.axis)].copy())
            finally:
                host.free()
        return self.geometry.by_layer(arrays)

    def _bytes(self, tensor: BoundTensor, batch: int) -> int:
        return math.prod(tensor.form.shape(batch, self.slots)) * np.dtype(self.geometry.dtype).itemsize


class SharedCache(TrtCache):
    """Past and present of a tensor are one buffer, written in place: a step moves no old token, and shapes stay."""

    def _allocate(self, batch: int, stream: int) -> None:
        sizes = [self._bytes(tensor, batch) for tensor in self.geometry.tensors]
        self._buffers.allocate(sizes)
        for address, size in zip(self._buffers.addresses, sizes, strict=True):
            # What is masked is still multiplied by zero, and zero times what was there before may not be a number.
            self._cuda.fill(address, 0, size, stream)

    def shapes(self, batch: int) -> dict[str, Shape]:
        return {tensor.past: tensor.form.shape(batch, self.slots) for tensor in self.geometry.tensors}

    def bind(self, context: Context) -> None:
        for tensor, address in zip(self.geometry.tensors, self._buffers.addresses, strict=True):
            context.address(tensor.past, address)
            context.address(tensor.present, address)

    def accept(self, new: int) -> None:
        self.length += new

    def key(self) -> tuple[int, ...]:
        return (self._generation,)

    def place(self, index: int) -> tuple[int, int]:
        return self._buffers.addresses[index], self.slots


class ConcatCache(TrtCache):
    """Present holds past and the new tokens, and is the next past: two buffers a tensor, which take turns.

    What lies in a buffer is dense for the tokens it holds. Going back to fewer therefore moves rows together, where a
    tensor has several (a head's tokens follow each other); it is done when the next step needs it.
    """

    def __init__(self, geometry: CacheGeometry, cuda: Cuda, slots: int) -> None:
        super().__init__(geometry, cuda, slots)
        #: Of each tensor: which of its two buffers is the past, and for how many tokens it is laid out.
        self._side = [0] * len(geometry.tensors)
        self._laid_out = [0] * len(geometry.tensors)

    def _allocate(self, batch: int, stream: int) -> None:
        self._buffers.allocate([self._bytes(tensor, batch) for tensor in self.geometry.tensors for _ in range(2)])
        self._laid_out = [0] * len(self.geometry.tensors)

    def prepare(self, batch: int, stream: int) -> None:
        super().prepare(batch, stream)
        item = np.dtype(self.geometry.dtype).itemsize
        for index, tensor in enumerate(self.geometry.tensors):
            if self._laid_out[index] == self.length:
                continue
            shape = tensor.form.shape(batch, self.length)
            rows = math.prod(shape[: tensor.form.axis])
            row_bytes = math.prod(shape[tensor.form.axis + 1 :]) * item
            if rows > 1 and self.length:
                past, present = self._both(index)
                kept, before = self.length * row_bytes, self._laid_out[index] * row_bytes
                self._cuda.copy_rows(present, kept, past, before, kept, rows, stream)
                self._side[index] ^= 1
            self._laid_out[index] = self.length

    def _both(self, index: int) -> tuple[int, int]:
        """Where past and present of a tensor lie."""
        side = self._side[index]
        return self._buffers.addresses[2 * index + side], self._buffers.addresses[2 * index + 1 - side]

    def shapes(self, batch: int) -> dict[str, Shape]:
        return {tensor.past: tensor.form.shape(batch, self.length) for tensor in self.geometry.tensors}

    def bind(self, context: Context) -> None:
        for index, tensor in enumerate(self.geometry.tensors):
            past, present = self._both(index)
            context.address(tensor.past, past)
            context.address(tensor.present, present)

    def accept(self, new: int) -> None:
        self.length += new
        self._side = [1 - side for side in self._side]
        self._laid_out = [self.length] * len(self._side)

    def key(self) -> tuple[int, ...]:
        return (self._generation, self.length, *self._side)

    def place(self, index: int) -> tuple[int, int]:
        return self._both(index)[0], self._laid_out[index]
