"""Where an ONNX Runtime session keeps earlier tokens: in shared buffers, or in tensors that grow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.runtime.signature import CacheGeometry, first_tokens

#: First size of shared buffers, in tokens. A short chat then touches little memory; see SharedCache.
FIRST_CAPACITY = 512


class OrtCache(ABC):
    """Binds past and present to a run, and keeps the tokens between runs."""

    def __init__(self, geometry: CacheGeometry, device: str) -> None:
        self.geometry = geometry
        self.device = device
        self.length = 0

    @abstractmethod
    def bind(self, binding: Any, batch: int, new: int) -> None:
        """Bind past and present for `new` more tokens; may change the memory, never the first `length` tokens."""

    @abstractmethod
    def accept(self, binding: Any, new: int) -> None:
        """Take over what the run has made of `new` more tokens."""

    @abstractmethod
    def rollback(self, length: int) -> None:
        """Keep the first `length` tokens; after 0 the next bind may come with another batch."""

    @abstractmethod
    def free(self) -> None:
        """Give the memory back."""

    @abstractmethod
    def arrays(self) -> list[dict[str, npt.NDArray[Any]]]:
        """Copies of every layer's cache tensors for `length` tokens, by suffix, for comparison."""


class SharedCache(OrtCache):
    """Past and present are one buffer for C tokens, written in place: a step moves no old token.

    Buffers start at FIRST_CAPACITY tokens and double when full, layer by layer, so that a chat of n tokens never
    holds memory for more than 2n (and one layer more while it grows), and copies each token about once in all.
    """

    def __init__(self, geometry: CacheGeometry, device: str, limit: int) -> None:
        super().__init__(geometry, device)
        self._limit = limit
        self._buffers: list[Any] = []
        self._batch = 0
        self._allocated = 0

    @property
    def allocated(self) -> int:
        """Tokens that every buffer can hold now."""
        return self._allocated

    @property
    def buffers(self) -> list[Any]:
        """The OrtValues, in the order of the geometry's tensors."""
        return self._buffers

    def bind(self, binding: Any, batch: int, new: int) -> None:
        if batch != self._batch:  # only after a reset: see OrtSession.forward
            self.free()
            self._batch = batch
        if self.length + new > self._allocated:
            self._grow(binding, self.length + new)

    def _grow(self, binding: Any, needed: int) -> None:
        import onnxruntime

        capacity = max(self._allocated, FIRST_CAPACITY)
        while capacity < needed:
            capacity *= 2
        capacity = self.geometry.slots or min(capacity, self._limit)
        grown = self._buffers or [None] * len(self.geometry.tensors)
        for index, tensor in enumerate(self.geometry.tensors):
            array = np.zeros(tensor.form.shape(self._batch, capacity), self.geometry.dtype)
            if self.length:
                kept = first_tokens(self.length, tensor.form.axis)
                array[kept] = grown[index].numpy()[kept]
            # Bound at once, because the binding is what keeps the old buffer in memory.
            grown[index] = onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device)
            binding.bind_ortvalue_input(tensor.past, grown[index])
            binding.bind_ortvalue_output(tensor.present, grown[index])
        # Only now: where memory ran out halfway, the next attempt grows them all again.
        self._buffers, self._allocated = grown, capacity

    def accept(self, binding: Any, new: int) -> None:
        self.length += new

    def rollback(self, length: int) -> None:
        self.length = length

    def free(self) -> None:
        self.length, self._allocated, self._buffers = 0, 0, []

    def arrays(self) -> list[dict[str, npt.NDArray[Any]]]:
        return self.geometry.by_layer(
            [
                buffer.numpy()[first_tokens(self.length, tensor.form.axis)].copy()
                for tensor, buffer in zip(self.geometry.tensors, self._buffers, strict=bool(self._buffers))
            ]
        )


class ConcatCache(OrtCache):
    """Present is a new tensor that holds past and the new tokens, and the next past."""

    def __init__(self, geometry: CacheGeometry, device: str) -> None:
        super().__init__(geometry, device)
        self._values: list[Any] = []

    def bind(self, binding: Any, batch: int, new: int) -> None:
        if self.length == 0:
            self._values = [
                self._value(np.zeros(tensor.form.shape(batch, 0), self.geometry.dtype))
                for tensor in self.geometry.tensors
            ]
        for tensor, value in zip(self.geometry.tensors, self._values, strict=True):
            binding.bind_ortvalue_input(tensor.past, value)
            binding.bind_output(tensor.present, self.device)

    def accept(self, binding: Any, new: int) -> None:
        self._values = binding.get_outputs()[-len(self.geometry.tensors) :]
        self.length += new

    def rollback(self, length: int) -> None:
        if 0 < length < self.length:
            self._values = [
                self._value(value.numpy()[first_tokens(length, tensor.form.axis)].copy())
                for tensor, value in zip(self.geometry.tensors, self._values, strict=True)
            ]
        self.length = length

    def free(self) -> None:
        self.length, self._values = 0, []

    def arrays(self) -> list[dict[str, npt.NDArray[Any]]]:
        return self.geometry.by_layer([value.numpy().copy() for value in self._values] if self.length else [])

    def _value(self, array: npt.NDArray[Any]) -> Any:
        import onnxruntime

        return onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device)
