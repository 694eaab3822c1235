"""Where an ONNX Runtime session keeps keys and values: in shared buffers, or in tensors that grow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import contract

#: First size of shared buffers, in tokens. A short chat then touches little memory; see SharedCache.
FIRST_CAPACITY = 512


@dataclass(frozen=True)
class CacheGeometry:
    """What the graph's past inputs say: keys and values of one layer are [B, kv_heads, tokens, head_dim]."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: npt.DTypeLike

    @property
    def names(self) -> list[tuple[str, str]]:
        """(past input, present output) of every layer's key and value, in graph order."""
        pairs = []
        for layer in range(self.layers):
            pairs.append((contract.past_key(layer), contract.present_key(layer)))
            pairs.append((contract.past_value(layer), contract.present_value(layer)))
        return pairs


class OrtCache(ABC):
    """Binds past and present to a run, and keeps the tokens' keys and values between runs."""

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
    def arrays(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Copies of every layer's key and value, [B, kv_heads, length, head_dim], for comparison."""


class SharedCache(OrtCache):
    """Past and present are one buffer [B, kv_heads, C, head_dim], written in place: a step moves no old token.

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
        """The OrtValues, key and value of every layer in turn."""
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
        capacity = min(capacity, self._limit)
        shape = (self._batch, self.geometry.kv_heads, capacity, self.geometry.head_dim)
        grown = self._buffers or [None] * (2 * self.geometry.layers)
        for index, (past, present) in enumerate(self.geometry.names):
            array = np.zeros(shape, self.geometry.dtype)
            if self.length:
                array[:, :, : self.length] = grown[index].numpy()[:, :, : self.length]
            # Bound at once, because the binding is what keeps the old buffer in memory.
            grown[index] = onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device)
            binding.bind_ortvalue_input(past, grown[index])
            binding.bind_ortvalue_output(present, grown[index])
        # Only now: where memory ran out halfway, the next attempt grows them all again.
        self._buffers, self._allocated = grown, capacity

    def accept(self, binding: Any, new: int) -> None:
        self.length += new

    def rollback(self, length: int) -> None:
        self.length = length

    def free(self) -> None:
        self.length, self._allocated, self._buffers = 0, 0, []

    def arrays(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        kept = [buffer.numpy()[:, :, : self.length].copy() for buffer in self._buffers]
        return list(zip(kept[0::2], kept[1::2], strict=True))


class ConcatCache(OrtCache):
    """Present [B, kv_heads, P + S, head_dim] is a new tensor that holds past and the new tokens, and the next past."""

    def __init__(self, geometry: CacheGeometry, device: str) -> None:
        super().__init__(geometry, device)
        self._values: list[Any] = []

    def bind(self, binding: Any, batch: int, new: int) -> None:
        if self.length == 0:
            shape = (batch, self.geometry.kv_heads, 0, self.geometry.head_dim)
            self._values = [self._value(np.zeros(shape, self.geometry.dtype)) for _ in self.geometry.names]
        for (past, present), value in zip(self.geometry.names, self._values, strict=True):
            binding.bind_ortvalue_input(past, value)
            binding.bind_output(present, self.device)

    def accept(self, binding: Any, new: int) -> None:
        self._values = binding.get_outputs()[-2 * self.geometry.layers :]
        self.length += new

    def rollback(self, length: int) -> None:
        if 0 < length < self.length:
            self._values = [self._value(value.numpy()[:, :, :length].copy()) for value in self._values]
        self.length = length

    def free(self) -> None:
        self.length, self._values = 0, []

    def arrays(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        kept = [value.numpy().copy() for value in self._values] if self.length else []
        return list(zip(kept[0::2], kept[1::2], strict=True))

    def _value(self, array: npt.NDArray[Any]) -> Any:
        import onnxruntime

        return onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device)
