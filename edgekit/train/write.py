"""The directory of a trained model: safetensors in float16, config.json and tokenizer files, each replaced whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgekit.checkpoint.json_file import encode_json
from edgekit.errors import EdgekitError
from edgekit.files import atomic_write
from edgekit.layers.decoder import Decoder


def write_checkpoint(directory: Path, model: Decoder, config: dict[str, Any], tokenizer_files: dict[str, bytes]) -> int:
    """Write the model as a Hugging Face directory; returns the bytes of its weights."""
    from safetensors.torch import save

    tensors = {name: parameter.detach().to(torch.float16).contiguous() for name, parameter in model.named_parameters()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise EdgekitError(
                "trained weights must fit into float16", f"{name} does not", "train with a lower learning rate"
            )
    weights = save(tensors, {"format": "pt"})
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in tokenizer_files.items():
        atomic_write(directory / name, content)
    atomic_write(directory / "config.json", encode_json(config))
    atomic_write(directory / "model.safetensors", weights)
    return len(weights)
