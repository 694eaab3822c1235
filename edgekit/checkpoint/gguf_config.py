"""config.json as a GGUF file's metadata implies it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.checkpoint.architectures.rope import scaling_from_factors, scaling_from_metadata
from edgekit.checkpoint.architectures.table import GgufArchitecture, Metadata
from edgekit.checkpoint.gguf_header import GgufHeader, broken
from edgekit.errors import CheckpointError


def special_token_id(header: GgufHeader, kind: str, path: Path) -> int | None:
    """tokenizer.ggml.{kind}_token_id, checked against the vocabulary where the file has one."""
    key = f"tokenizer.ggml.{kind}_token_id"
    value = header.metadata.get(key)
    if value is None:
        return None
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(value, int) or value < 0 or (isinstance(tokens, list) and value >= len(tokens)):
        raise broken(path, f"{key} is {value!r}, which is no token of its vocabulary")
    return value


def _check_layers(header: GgufHeader, layers: int, path: Path) -> None:
    found = {int(m.group(1)) for name in header.tensors if (m := re.match(r"blk\.(\d{1,5})\.", name))}
    if len(found) != layers or (found and max(found) != layers - 1):
        raise broken(path, f"block_count says {layers} layers, but there are tensors of {len(found)}")


def _head_dim(metadata: Metadata, hidden: int, heads: int) -> int:
    head_dim = metadata.count("attention.key_length", max(hidden // heads, 1))
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.count(key, head_dim) != head_dim:
            raise CheckpointError(
                "queries, keys and values must have one head size, rotated as a whole",
                f"{metadata.path}: {key} is {metadata.count(key)}, the head size {head_dim}",
                "edgekit does not run such models: take another one",
            )
    if head_dim % 2:
        raise broken(metadata.path, f"the head size {head_dim} is odd, which RoPE cannot rotate")
    return head_dim


def _rope_scaling(
    metadata: Metadata, factors: npt.NDArray[np.float32] | None, theta: float, head_dim: int
) -> dict[str, Any] | None:
    scaling = scaling_from_metadata(metadata)
    if factors is None:
        return scaling
    if factors.shape != (head_dim // 2,) or not np.all(np.isfinite(factors) & (factors > 0)):
        raise broken(metadata.path, f"rope_freqs.weight does not hold {head_dim // 2} positive numbers")
    by_frequency = scaling_from_factors(factors, theta, head_dim)
    if scaling is not None and by_frequency is not None:
        raise CheckpointError(
            "RoPE must be scaled by one rule",
            f"{metadata.path} has rope_freqs.weight and the rule {scaling['rope_type']!r}",
            "edgekit does not run such models: take another one",
        )
    return scaling or by_frequency


def config_from_header(
    header: GgufHeader, architecture: GgufArchitecture, path: Path, rope_factors: npt.NDArray[np.float32] | None
) -> dict[str, Any]:
    """A Hugging Face style configuration.

    Args:
        rope_factors: the tensor rope_freqs.weight [head_dim/2], where the file has it.

    Raises CheckpointError where a needed key is missing or contradicts the tensors.
    """
    metadata = Metadata(header, str(header.metadata["general.architecture"]), path)
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise broken(path, "it has no two-dimensional tensor 'token_embd.weight'")
    layers, hidden = metadata.count("block_count"), metadata.count("embedding_length")
    heads = metadata.count("attention.head_count")
    _check_layers(header, layers, path)
    head_dim = _head_dim(metadata, hidden, heads)
    theta = metadata.number("rope.freq_base", 10000.0)
    scaling = _rope_scaling(metadata, rope_factors, theta, head_dim)
    config: dict[str, Any] = {
        "architectures": [architecture.hf_class],
        "model_type": architecture.model_type,
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": metadata.count("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.count("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": metadata.count("context_length"),
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "bos_token_id": special_token_id(header, "bos", path),
        "eos_token_id": special_token_id(header, "eos", path),
        "pad_token_id": special_token_id(header, "padding", path),
    }
    return {**config, **architecture.extra_config(metadata)}
