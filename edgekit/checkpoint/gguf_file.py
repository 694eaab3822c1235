"""A GGUF file as a checkpoint: weights mapped, dequantised one at a time, under Hugging Face names and row order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.checkpoint.architectures import gguf_architecture
from edgekit.checkpoint.architectures.table import ROPE_FACTORS, original_row_order
from edgekit.checkpoint.gguf_blocks import dequantizable, dequantize_rows, quant_blocks
from edgekit.checkpoint.gguf_config import config_from_header
from edgekit.checkpoint.gguf_header import GgufHeader, GgufTensor, broken, read_gguf_header
from edgekit.checkpoint.interface import Array, Checkpoint, QuantBlocks, TensorSpec, unknown_tensor
from edgekit.errors import CheckpointError

_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class GgufCheckpoint(Checkpoint):
    """Opens the file and checks its header; raises CheckpointError for a file that is damaged or not understood."""

    format = "gguf"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_gguf_header(path)
        self._refuse_split()
        name = self.header.metadata.get("general.architecture")
        if not isinstance(name, str):
            raise broken(path, "the metadata key 'general.architecture' is missing")
        self.architecture = gguf_architecture(name)
        self._tensors = self._named(self.header)
        self._data = np.memmap(path, np.uint8, mode="r")
        self.config: dict[str, Any] = config_from_header(self.header, self.architecture, path, self._rope_factors())

    def _refuse_split(self) -> None:
        parts = self.header.metadata.get("split.count", 1)
        if parts != 1:
            raise CheckpointError(
                "a GGUF model must be one file",
                f"{self.path} is one of {parts} parts",
                "join them with `llama-gguf-split --merge`",
            )

    def _named(self, header: GgufHeader) -> dict[str, GgufTensor]:
        """Tensors by Hugging Face name. A tensor without one, or of an unreadable type, is an error."""
        named: dict[str, GgufTensor] = {}
        strange: list[str] = []
        for tensor in header.tensors.values():
            if tensor.name == ROPE_FACTORS:
                continue
            name = self.architecture.hf_name(tensor.name)
            if name is None:
                strange.append(tensor.name)
                continue
            if not dequantizable(tensor.type_id):
                raise CheckpointError(
                    "a GGUF tensor's type must be one that the gguf library dequantises",
                    f"{self.path}: {tensor.name} is {tensor.type_name}",
                    "take a file of another quantisation of the same model",
                )
            named[name] = tensor
        if strange:
            raise CheckpointError(
                f"a GGUF file of architecture {header.metadata['general.architecture']!r} must hold its weights only",
                f"{self.path} also holds {', '.join(strange[:5])}{' and more' if len(strange) > 5 else ''}",
                "take another model: this is a variant (mixture of experts, adapter) that edgekit does not run",
            )
        return named

    def _rope_factors(self) -> npt.NDArray[np.float32] | None:
        tensor = self.header.tensors.get(ROPE_FACTORS)
        if tensor is None:
            return None
        if tensor.type_name != "F32" or len(tensor.shape) != 1:
            raise broken(self.path, f"{ROPE_FACTORS} is {tensor.type_name} {list(tensor.shape)}, not a float32 vector")
        return self._bytes(tensor).view(np.float32).reshape(-1)

    def _bytes(self, tensor: GgufTensor) -> npt.NDArray[np.uint8]:
        """The tensor's bytes as stored, [product of the leading axes, row bytes]; a view of the file."""
        flat = np.asarray(self._data[tensor.offset : tensor.offset + tensor.nbytes])
        return flat.reshape(-1, tensor.row_bytes)

    def _tensor(self, name: str) -> GgufTensor:
        if name not in self._tensors:
            raise unknown_tensor(name, self.path, self._tensors)
        return self._tensors[name]

    def _row_order(self, tensor: GgufTensor) -> npt.NDArray[np.intp] | None:
        if not self.architecture.is_permuted(tensor.name):
            return None
        key = "num_attention_heads" if ".attn_q." in tensor.name else "num_key_value_heads"
        heads: int = self.config[key]
        rows = tensor.shape[0]
        if rows % (2 * heads):
            raise broken(self.path, f"{tensor.name} has {rows} rows, which {heads} heads of an even size cannot share")
        return original_row_order(rows, heads)

    def names(self) -> list[str]:
        return list(self._tensors)

    def spec(self, name: str) -> TensorSpec:
        tensor = self._tensor(name)
        return TensorSpec(name, tensor.shape, _PLAIN.get(tensor.type_name, tensor.type_name), tensor.nbytes)

    def array(self, name: str) -> Array:
        """Always float32: stored types are dequantised."""
        tensor = self._tensor(name)
        raw = self._bytes(tensor)
        order = self._row_order(tensor)
        # A vector is one row of bytes: reorder it after it has become numbers.
        if order is not None and len(tensor.shape) > 1:
            raw = raw[order]
        if tensor.type_name == "F32":
            array: Array = raw.view(np.float32).reshape(tensor.shape)
            if not array.flags.aligned:  # general.alignment may be 1 or 2
                array = array.copy()
        else:
            array = dequantize_rows(raw, tensor.type_id, tensor.shape[-1]).reshape(tensor.shape)
        if order is not None and len(tensor.shape) == 1:
            array = array[order]
        if self.architecture.norm_offset and self.architecture.is_norm(tensor.name):
            array = array - np.float32(self.architecture.norm_offset)
        return array

    def blocks(self, name: str) -> QuantBlocks | None:
        tensor = self._tensor(name)
        if len(tensor.shape) != 2:
            return None
        raw = self._bytes(tensor)
        order = self._row_order(tensor)
        return quant_blocks(raw if order is None else raw[order], tensor.type_name)

    def file_paths(self) -> list[Path]:
        return [self.path]

    def tokenizer_files(self) -> dict[str, bytes]:
        from edgekit.checkpoint.tokenizer.files import tokenizer_files_from_header

        return tokenizer_files_from_header(self.header, self.path)
