"""How a GGUF architecture corresponds to a Hugging Face model: names of weights, row order, configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.checkpoint.gguf_header import GgufHeader, broken
from edgekit.errors import CheckpointError

#: GGUF name (without .weight) -> Hugging Face name, outside the layers.
MODEL_TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
#: GGUF name inside blk.N -> Hugging Face name inside model.layers.N, shared by all dense pre-norm decoders.
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
#: Not a weight: per-frequency RoPE divisors, which go into the configuration.
ROPE_FACTORS = "rope_freqs.weight"

_LAYER = re.compile(r"blk\.(\d{1,5})\.([a-z0-9_]+)\.(weight|bias)")


class Metadata:
    """The metadata of one file, read by keys of its architecture ("attention.head_count"), with types checked."""

    def __init__(self, header: GgufHeader, architecture: str, path: Path) -> None:
        self.header = header
        self.architecture = architecture
        self.path = path

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.header.metadata

    def get(self, key: str) -> Any:
        full = f"{self.architecture}.{key}"
        if full not in self.header.metadata:
            raise broken(self.path, f"the metadata key {full!r} is missing")
        return self.header.metadata[full]

    def count(self, key: str, default: int | None = None) -> int:
        """A positive number that is the same in every layer."""
        if default is not None and not self.has(key):
            return default
        value = self.get(key)
        if isinstance(value, np.ndarray):
            if len(set(value.tolist())) != 1:
                raise CheckpointError(
                    "all layers must have the same shape",
                    f"{self.path}: {self.architecture}.{key} differs from layer to layer",
                    "edgekit does not run models whose layers differ in shape: take another model",
                )
            value = value.tolist()[0]
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise broken(self.path, f"{self.architecture}.{key} is {value!r}, not a positive integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite positive number, as the shortest decimal that gives the stored float32 (1e-05, not 9.99e-06)."""
        if default is not None and not self.has(key):
            return default
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise broken(self.path, f"{self.architecture}.{key} is {value!r}, not a positive number")
        return float(str(np.float32(value)))


@dataclass(frozen=True)
class GgufArchitecture:
    """One GGUF architecture.

    Attributes:
        model_type: `model_type` of config.json.
        hf_class: the class named in `architectures` of config.json.
        layer_tensors: GGUF name inside blk.N -> Hugging Face name inside model.layers.N.
        permuted: GGUF names of the projections whose rows llama.cpp reorders for its interleaved RoPE.
        norm_offset: what llama.cpp added to every norm weight (1 for Gemma), to be subtracted.
        extra_config: keys of config.json beyond the common ones.
    """

    model_type: str
    hf_class: str
    layer_tensors: Mapping[str, str]
    extra_config: Callable[[Metadata], dict[str, Any]]
    permuted: frozenset[str] = frozenset()
    norm_offset: float = 0.0

    def hf_name(self, gguf_name: str) -> str | None:
        """The Hugging Face name of a weight, or None where this architecture has no such weight."""
        if match := _LAYER.fullmatch(gguf_name):
            layer, stem, kind = match.groups()
            if stem in self.layer_tensors:
                return f"model.layers.{int(layer)}.{self.layer_tensors[stem]}.{kind}"
            return None
        stem, _, kind = gguf_name.rpartition(".")
        if stem in MODEL_TENSORS and kind == "weight":
            return f"{MODEL_TENSORS[stem]}.{kind}"
        return None

    def is_permuted(self, gguf_name: str) -> bool:
        match = _LAYER.fullmatch(gguf_name)
        return match is not None and match.group(2) in self.permuted

    def is_norm(self, gguf_name: str) -> bool:
        return gguf_name.endswith("_norm.weight")


def original_row_order(rows: int, heads: int) -> npt.NDArray[np.intp]:
    """Indices [rows] that undo llama.cpp's reordering of the query or key rows of architecture `llama`.

    llama.cpp rotates neighbouring pairs (2i, 2i+1), Hugging Face pairs (i, i+d/2); the converter therefore stores row
    (h, j, i) of [heads, 2, d/2] at (h, i, j).
    """
    head_dim = rows // heads
    return np.arange(rows).reshape(heads, head_dim // 2, 2).swapaxes(1, 2).reshape(rows)
