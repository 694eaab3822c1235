"""Writing a safetensors file tensor by tensor: the header comes first, so sizes are told before any data is made.

Layout: see `safetensors_header`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.checkpoint.interface import Array
from edgekit.files import atomic_file

#: NumPy name -> safetensors name.
NAMES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "int32": "I32",
}


@dataclass(frozen=True)
class Planned:
    """A tensor to write: its name, its NumPy dtype's name, its shape, and what makes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        """Of its data."""
        size = 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize
        return int(np.prod(self.shape, dtype=np.int64)) * size


def planned(name: str, array: Array) -> Planned:
    """An array that is there already."""
    return Planned(name, array.dtype.name, array.shape, lambda: array)


def write_safetensors(path: Path, tensors: Iterable[Planned], metadata: dict[str, str] | None = None) -> None:
    """Write the tensors in their order, one in memory at a time, replacing the file in one step.

    The same tensors give the same bytes.
    """
    tensors = list(tensors)
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for tensor in tensors:
        place = [offset, offset + tensor.nbytes]
        header[tensor.name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        offset = place[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            array = np.ascontiguousarray(tensor.load())
            if array.dtype.name != tensor.dtype or array.shape != tensor.shape:
                raise AssertionError(f"{tensor.name} was planned as {tensor.dtype}{tensor.shape}, made otherwise")
            file.write(array.reshape(-1).view(np.uint8).data)
