"""Smaller checkpoints: edgekit's methods, plain rounding, and llama.cpp's types."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.compress.layerwise import compress as compression
from edgekit.compress.layerwise.calibrate import calibrate, statistics_file
from edgekit.compress.layerwise.options import CompressOptions, sizes_of
from edgekit.compress.layerwise.stack import layer_of, stack_of
from edgekit.compress.saten.request import method_named
from edgekit.errors import ExportError
from edgekit.progress import SilentProgress

from .ggml import PREFIX, GgmlLibrary, ggml_type
from .plain import plain_base, plain_rounded
from .replaced import Change, Replaced

PLAIN = "plain"


@dataclass(frozen=True)
class Made:
    """A smaller checkpoint.

    Attributes:
        matrix_bytes, bits: of the matrices that edgekit compresses, in all and for each weight.
        seconds: that making it took; None where that is done as it is read.
        healable: whether edgekit may heal it.
        library: by which it was made, with its version; None for edgekit and plain rounding.
    """

    checkpoint: Checkpoint
    matrix_bytes: int
    bits: float
    seconds: float | None = None
    healable: bool = False
    library: str | None = None


#: From the bits that are asked for, and a directory that may be written, to a checkpoint.
Maker = Callable[[float, Path], Made]


class Calibration:
    """Inputs' moments, measured once into a folder when they are first wanted, or gone on with there."""

    def __init__(self, original: Checkpoint, folder: Path, sequences: int) -> None:
        self._original, self._folder, self._sequences = original, folder, sequences
        self._done = False

    def folder(self) -> Path:
        """Where they are."""
        if not self._done:
            stack = stack_of(self._original, self._sequences, CompressOptions.length)
            calibrate(stack, self._folder, SilentProgress())
            self._done = True
        return self._folder

    def share(self) -> None:
        """Let every compression of this process take them."""

        def linked(stack: Any, place: Path, *rest: Any) -> bool:
            shutil.copytree(self.folder(), place, dirs_exist_ok=True, copy_function=os.link)
            return calibrate(stack, place, *rest)

        vars(compression)["calibrate"] = linked

    def mean_squares(self, name: str) -> npt.NDArray[np.float32]:
        """E[x²] of a matrix's inputs: float32 [K]."""
        from safetensors import safe_open

        with safe_open(statistics_file(self.folder(), layer_of(name) or 0), framework="np") as file:
            key = json.loads(file.metadata()["keys"])[name]
            found: npt.NDArray[np.float32] = file.get_tensor(f"moments.{key}").diagonal().copy()
        return found


class Makers:
    """What makes a method's checkpoints. Raises ExportError for what nothing makes."""

    def __init__(self, original: Checkpoint, calibration: Calibration, arguments: argparse.Namespace) -> None:
        self._original, self._calibration, self._arguments = original, calibration, arguments
        self._sizes = sizes_of(original)
        self._library = None if arguments.ggml is None else GgmlLibrary(arguments.ggml)

    def original_bits(self) -> float:
        """Bits per weight of the matrices as they are."""
        return 8 * sum(self._original.spec(n).nbytes for n in self._sizes.matrices) / self._sizes.compressed_weights

    def maker(self, method: str) -> Maker:
        """Of a method's name."""
        if method.startswith(PREFIX):
            return self._ggml(method)
        if method == PLAIN:
            return self._plain
        method_named(method)
        return lambda bits, target: self._compressed(method, bits, target)

    def _compressed(self, method: str, bits: float, target: Path) -> Made:
        given = self._arguments
        options = CompressOptions(
            method=method,
            bits_per_weight=bits,
            rounds=given.rounds,
            sequences=given.sequences,
            allocate=not given.uniform,
            workers=given.workers,
        )
        started = time.monotonic()
        made = compression.compress(self._original, target, options, overwrite=True, progress=SilentProgress())
        assert made is not None
        seconds = time.monotonic() - started
        return Made(open_checkpoint(target), made["matrix_bytes"], made["bits_per_weight"], seconds, healable=True)

    def _plain(self, bits: float, target: Path) -> Made:
        bases = {name: plain_base(shape, bits) for name, shape in self._sizes.matrices.items()}
        return self._made(
            lambda name, weight: plain_rounded(weight, *bases[name][1:]).dequantized(),
            sum(nbytes for nbytes, _, _ in bases.values()),
        )

    def _ggml(self, method: str) -> Maker:
        asked, library = ggml_type(method), self._library
        if library is None:
            raise ExportError("llama.cpp's types need its library", f"{method} was asked for", "give it as --ggml PATH")
        library.check(asked)
        nbytes = sum(asked.nbytes(shape) for shape in self._sizes.matrices.values())

        def rounded(name: str, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            return library.rounded(asked, weight, self._calibration.mean_squares(name) if asked.importance else None)

        return lambda bits, target: self._made(rounded, nbytes, library.version)

    def _made(self, change: Change, nbytes: int, library: str | None = None) -> Made:
        checkpoint = Replaced(self._original, self._sizes.matrices, change)
        return Made(checkpoint, nbytes, 8 * nbytes / self._sizes.compressed_weights, library=library)
