"""A Hugging Face directory whose matrices are stored compressed, as `edgekit compress` writes it.

config.json has, beside the model's own keys, "compression": {"version": 1, "matrices": {weight: record}}; a record says
of which pieces a matrix is the sum, with shapes, ranks and formats (`edgekit.compress.saten.compressed`). The arrays of
piece k stand in model.safetensors as "<weight>/<k>.<array>".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.checkpoint.hugging_face import HuggingFaceCheckpoint
from edgekit.checkpoint.interface import Array, TensorSpec
from edgekit.checkpoint.json_file import read_json_object
from edgekit.checkpoint.safetensors_header import INTEGERS
from edgekit.errors import CheckpointError

if TYPE_CHECKING:
    from edgekit.compress.saten.compressed import CompressedMatrix

KEY, VERSION = "compression", 1
RECORD = "compression.json"


def is_compressed_directory(path: Path) -> bool:
    """Whether config.json speaks of compressed matrices."""
    return (path / "config.json").is_file() and KEY in read_json_object(path / "config.json")


class CompressedCheckpoint(HuggingFaceCheckpoint):
    """Opens the directory. Compressed matrices appear under their own names, as the dense matrices they stand for.

    Attributes:
        records: weight -> what config.json says of it.

    Raises:
        CheckpointError: as `HuggingFaceCheckpoint`; another version; a record without arrays, or arrays without record.
    """

    format = "compressed safetensors"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        said = self.config[KEY]
        # What reads the configuration sees the model that it was: dense matrices.
        self.config = {key: value for key, value in self.config.items() if key != KEY}
        if not isinstance(said, dict) or said.get("version") != VERSION or not isinstance(said.get("matrices"), dict):
            raise self._wrong(
                f"config.json speaks of version {said.get('version') if isinstance(said, dict) else said}"
            )
        self.records: dict[str, dict[str, Any]] = said["matrices"]
        self._arrays: dict[str, list[str]] = {name: [] for name in self.records}
        for stored in self._tensors:
            weight, slash, array = stored.partition("/")
            if slash and weight not in self.records:
                raise self._wrong(f"model.safetensors holds {stored}, of which config.json says nothing")
            if slash:
                self._arrays[weight].append(array)
        for name, arrays in self._arrays.items():
            if not arrays:
                raise self._wrong(f"model.safetensors holds nothing of {name}")

    def _wrong(self, fact: str) -> CheckpointError:
        return CheckpointError(
            f"a compressed checkpoint's config.json (version {VERSION}) and weights must agree",
            f"{self.path}: {fact}",
            "compress the model again with this version of edgekit",
        )

    def names(self) -> list[str]:
        plain = [name for name in self._tensors if "/" not in name]
        return [*plain, *self.records]

    def spec(self, name: str) -> TensorSpec:
        if name not in self.records:
            return super().spec(name)
        rows, columns = self.records[name]["shape"]
        nbytes = sum(super(CompressedCheckpoint, self).spec(f"{name}/{array}").nbytes for array in self._arrays[name])
        return TensorSpec(name, (int(rows), int(columns)), str(self.records[name]["method"]), nbytes)

    def array(self, name: str) -> Array:
        if name not in self.records:
            return super().array(name)
        found = self.matrix(name)
        try:
            dense = found.reconstruct()
        except (ValueError, IndexError) as error:
            raise self._wrong(f"the pieces of {name} do not fit together ({error})") from None
        if dense.shape != tuple(found.shape):
            raise self._wrong(f"the pieces of {name} make a matrix {list(dense.shape)}, not {list(found.shape)}")
        return dense

    def matrix(self, name: str) -> CompressedMatrix:
        """A compressed matrix with its pieces. Needs torch.

        Raises:
            CheckpointError: its arrays are not those that its record speaks of.
        """
        from edgekit.compress.saten.compressed import compressed_from

        arrays = {array: self._stored(f"{name}/{array}") for array in self._arrays[name]}
        try:
            return compressed_from(self.records[name], arrays)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise self._wrong(f"{name} cannot be put together ({type(error).__name__}: {error})") from None

    def _stored(self, stored: str) -> Array:
        """An array as it is in the file, by its name there."""
        path, tensor = self._entry(stored)
        if tensor.dtype not in INTEGERS:
            return super().array(stored)
        return self._mapped(path, tensor, INTEGERS[tensor.dtype])
