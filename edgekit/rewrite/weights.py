"""Constants that are described now and computed when the model file is written.

A traced graph holds no weight data. Each constant is a `Weight`: shape, dtype and a function that makes the array.
Rules compose them (transpose, cast, concatenate, quantise) without touching data, and the writer asks for one array
at a time, so that a model is converted in the memory of its largest tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx_graphsurgeon.ir.tensor import LazyValues

Array = npt.NDArray[np.generic]


class Weight(LazyValues):  # type: ignore[misc]  # graphsurgeon has no type hints
    """A constant tensor computed on demand.

    Args:
        shape: its dimensions.
        dtype: numpy dtype (ml_dtypes for bfloat16 and packed 4-bit integers).
        load: makes the array; called once per writing.
        key: equal keys mean equal bytes: the writer stores them once.
    """

    def __init__(
        self, shape: Sequence[int], dtype: npt.DTypeLike, load: Callable[[], Array], key: Hashable | None = None
    ) -> None:
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        self.key: Hashable = key if key is not None else object()
        #: set by the writer: the reference into the external data file that graphsurgeon exports.
        self.tensor: onnx.TensorProto | None = None
        self._make = load
        self._origin: Weight | None = None
        #: the checkpoint tensors behind it, in the order of their rows.
        self.sources: tuple[str, ...] = ()

    def load(self) -> Array:
        """The array; raises if the function made another shape or dtype than declared."""
        array = self._make()
        if tuple(array.shape) != self.shape or array.dtype != self.dtype:
            raise AssertionError(f"weight declared {self.dtype}{self.shape}, made {array.dtype}{array.shape}")
        return array

    def transposed(self) -> Weight:
        """The matrix with its two axes exchanged; exchanged twice it is the weight it came from."""
        if self._origin is not None:
            return self._origin
        key = ("transposed", self.key)
        result = Weight(self.shape[::-1], self.dtype, lambda: np.ascontiguousarray(self.load().T), key)
        result._origin, result.sources = self, self.sources
        return result

    def cast(self, dtype: npt.DTypeLike) -> Weight:
        """The same values in another dtype."""
        target = np.dtype(dtype)
        if target == self.dtype:
            return self
        result = Weight(self.shape, target, lambda: self.load().astype(target), ("cast", target.name, self.key))
        result.sources = self.sources
        return result

    def __str__(self) -> str:
        return f"Weight({self.dtype.name}, {self.shape})"

    __repr__ = __str__


def concatenated(weights: Sequence[Weight], axis: int = 0) -> Weight:
    """Weights joined along `axis`; all other dimensions and the dtype must agree."""
    first = weights[0]
    if axis == 1 and all(w._origin is not None for w in weights):
        return concatenated([w.transposed() for w in weights], axis=0).transposed()
    shape = list(first.shape)
    shape[axis] = sum(w.shape[axis] for w in weights)
    key = ("concatenated", axis, *(w.key for w in weights))
    result = Weight(shape, first.dtype, lambda: np.concatenate([w.load() for w in weights], axis=axis), key)
    result.sources = tuple(source for weight in weights for source in weight.sources)
    return result
