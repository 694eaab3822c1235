"""A checkpoint with other matrices in some places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.checkpoint import Checkpoint, TensorSpec

Floats = npt.NDArray[np.float32]
#: From a matrix's name and values [N, K] to the values that are read instead.
Change = Callable[[str, Floats], Floats]


class Replaced(Checkpoint):
    """Matrices are changed whenever they are read, so that one is in memory at a time; the rest is the original's."""

    def __init__(self, original: Checkpoint, matrices: Mapping[str, tuple[int, int]], change: Change) -> None:
        self.format, self.path, self.config = original.format, original.path, original.config
        self._original, self._matrices, self._change = original, matrices, change

    def names(self) -> list[str]:
        return self._original.names()

    def spec(self, name: str) -> TensorSpec:
        spec = self._original.spec(name)
        if name not in self._matrices:
            return spec
        rows, columns = spec.shape
        return replace(spec, dtype="float32", nbytes=4 * rows * columns)

    def array(self, name: str) -> npt.NDArray[Any]:
        found = self._original.array(name)
        if name not in self._matrices:
            return found
        return np.ascontiguousarray(self._change(name, np.ascontiguousarray(found, np.float32)), np.float32)

    def tokenizer_files(self) -> dict[str, bytes]:
        return self._original.tokenizer_files()

    def file_paths(self) -> list[Path]:
        return self._original.file_paths()
