"""Tiny random checkpoints as Hugging Face directories, and bundles of them made by the real exporter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from edgekit.bundle import Bundle, read_bundle
from edgekit.checkpoint import Checkpoint
from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint
from edgekit.models.registry import model_on_meta
from edgekit.progress import SilentProgress
from tests.chat.tiny_tokenizers import byte_level

_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "bos_token_id": 0,
    "eos_token_id": 2,
}

#: Configurations by name; each has something that the others have not.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama-untied": {"model_type": "llama", "tie_word_embeddings": False},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": False},
    "t6": {
        "model_type": "t6",
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "query_rank": 3,
        "key_rank": 2,
        "value_rank": 1,
    },
    "llama_tpa": {
        "model_type": "llama_tpa",
        "tie_word_embeddings": True,
        "attention_factors": [
            {"key": {"structure": "exact"}, "value": {"structure": "exact"}},
            {
                "key": {"structure": "spectral", "frequencies": [0, 0, 2, 5, 7, 7]},
                "value": {"structure": "latent", "rank": 19},
            },
            {"key": {"structure": "latent", "rank": 9}, "value": {"structure": "head", "rank": 1}},
        ],
    },
    "gemma3_text": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 4,
        "sliding_window": 7,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 12,
        "rope_local_base_freq": 30.0,
    },
}


def write_checkpoint(folder: Path, name: str, *, seed: int = 0, **changes: Any) -> Path:
    """A Hugging Face directory with random weights; equal seeds give equal weights."""
    tokenizer = byte_level()
    config = {**_COMMON, "vocab_size": tokenizer.get_vocab_size(), **CONFIGS[name], **changes}
    rng = np.random.default_rng(seed)
    weights = {}
    gemma = config["model_type"].startswith("gemma")
    for weight, parameter in model_on_meta(config).named_parameters():
        values = rng.standard_normal(tuple(parameter.shape)) * (0.1 if "norm" in weight else 0.2)
        if weight.endswith("norm.weight") and not gemma:
            values += 1
        if weight.endswith((".a_k", ".a_v")) and len(values) == config["num_key_value_heads"]:
            # Factors that pick a head, as an exact conversion has them.
            values = np.repeat(np.eye(len(values)), values.shape[1] // len(values), axis=1)
        weights[weight] = values.astype(np.float32)
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>", "add_bos_token": False}))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def export(checkpoint: Checkpoint, destination: Path, form: str = "ort", dtype: str = "fp32") -> Bundle:
    """A bundle made by the real exporter, with a calibration as short as the model is small."""
    options = ExportOptions(dtype=dtype, form=form, calibration_sequences=2, calibration_length=32)
    return read_bundle(bundle_from_checkpoint(checkpoint, destination, options, progress=SilentProgress()))
