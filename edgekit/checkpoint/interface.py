"""What every checkpoint offers, whichever file format it came in.

Shapes: V vocabulary, H hidden size, in/out the features of a linear layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from edgekit.errors import CheckpointError
from edgekit.files import sha256_of

Array = npt.NDArray[Any]


class FileRecord(TypedDict):
    """One file of a checkpoint: its name inside the checkpoint, its size in bytes, its SHA-256 in hexadecimal."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class TensorSpec:
    """One weight as it is stored.

    Attributes:
        name: Hugging Face tensor name, e.g. "model.layers.0.self_attn.q_proj.weight".
        shape: in the order of PyTorch, [out, in] for a linear layer.
        dtype: NumPy name ("float32", "float16", "bfloat16") or GGML block type ("Q4_1").
        nbytes: bytes in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class QuantBlocks:
    """A weight as the integers it is stored as: w = scale * (codes - zero_point) + minimum.

    Attributes:
        codes: uint8 (4-bit types, 0..15) or int8 (Q8_0), [out, in/32, 32].
        scale: float32 [out, in/32].
        minimum: float32 [out, in/32], or None where the type has none.
        zero_point: the code that stands for 0 before `minimum` is added: 8 for Q4_0, else 0.
        bits: 4 or 8.
        type: the GGML name, "Q4_0", "Q4_1" or "Q8_0".
    """

    codes: Array
    scale: npt.NDArray[np.float32]
    minimum: npt.NDArray[np.float32] | None
    zero_point: int
    bits: int
    type: str


class Checkpoint(ABC):
    """Weights, configuration and tokenizer of one model, under Hugging Face names.

    Attributes:
        format: "gguf" or "safetensors".
        path: the GGUF file or the Hugging Face directory.
        config: the contents of config.json (made from the metadata for a GGUF), with "model_type".
    """

    format: str
    path: Path
    config: dict[str, Any]

    @abstractmethod
    def names(self) -> list[str]:
        """Hugging Face names of all weights, in the order of the file."""

    @abstractmethod
    def spec(self, name: str) -> TensorSpec:
        """How the weight is stored. Raises CheckpointError for an unknown name."""

    @abstractmethod
    def array(self, name: str) -> Array:
        """The weight as float32, float16 or ml_dtypes.bfloat16, C-contiguous, in PyTorch's order.

        Nothing is cached, and the array may be a read-only view of the mapped file.
        """

    def blocks(self, name: str) -> QuantBlocks | None:
        """The stored integers of a Q4_0, Q4_1 or Q8_0 weight with rows in the order of `array`, else None."""
        self.spec(name)
        return None

    @abstractmethod
    def tokenizer_files(self) -> dict[str, bytes]:
        """File name -> contents: tokenizer.json, tokenizer_config.json, generation_config.json and, where there is
        one, chat_template.jinja and special_tokens_map.json. Raises CheckpointError where there is no tokenizer.
        """

    @abstractmethod
    def file_paths(self) -> list[Path]:
        """The files that the checkpoint consists of."""

    @cached_property
    def _records(self) -> list[FileRecord]:
        root = self.path if self.path.is_dir() else self.path.parent
        return [
            {"name": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for path in self.file_paths()
        ]

    def files(self) -> list[FileRecord]:
        """Name, size and SHA-256 of each file; hashed at the first call."""
        return list(self._records)


def unknown_tensor(name: str, path: Path, names: Iterable[str]) -> CheckpointError:
    """The error for a weight that the checkpoint does not hold."""
    import difflib

    near = difflib.get_close_matches(name, list(names), n=3)
    return CheckpointError(
        "a weight must be in the checkpoint",
        f"{path} holds no weight named {name!r}",
        f"nearest names: {', '.join(near)}" if near else "names() lists all of them",
    )
