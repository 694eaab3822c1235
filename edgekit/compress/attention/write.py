"""Writing a Hugging Face style directory that appears at its place as a whole."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.checkpoint import Checkpoint
from edgekit.compress.attention.source import prefix
from edgekit.errors import CheckpointError
from edgekit.files import sync_directory
from edgekit.models._weights import tensor_from_array

WEIGHTS, CONFIG, RECORD = "model.safetensors", "config.json", "conversion.json"
_STORED = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@contextmanager
def new_directory(destination: Path, *, overwrite: bool = False, record: str = RECORD) -> Iterator[Path]:
    """A directory to fill, which takes the place of `destination` when the block ends well.

    Args:
        record: the file by which a directory that may be replaced is known.

    Raises:
        CheckpointError: something is there and `overwrite` is not set, or it is no directory that holds the record.
    """
    check_destination(destination, overwrite=overwrite, record=record)
    destination.parent.mkdir(parents=True, exist_ok=True)
    draft = destination.with_name(f".{destination.name}.partial-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    _clear_leftovers(destination)
    draft.mkdir()
    try:
        yield draft
        if destination.exists():
            shutil.rmtree(destination)
        os.replace(draft, destination)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_directory(destination.parent)


def _clear_leftovers(destination: Path) -> None:
    """Remove what writers left that were killed."""
    for path in destination.parent.glob(f".{glob.escape(destination.name)}.partial-*"):
        process = path.name.rpartition("-")[2]
        if process.isdecimal() and not _runs(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def check_destination(destination: Path, *, overwrite: bool, record: str = RECORD) -> None:
    """CheckpointError unless the destination is free or may be replaced."""
    if not destination.exists():
        return
    rule = "the destination must be free"
    if not overwrite:
        raise CheckpointError(rule, f"{destination} exists", "choose another name, or --overwrite")
    if not (destination / record).is_file():
        raise CheckpointError(rule, f"{destination} holds no {record}", "choose another name, or remove it")


def write_directory(
    folder: Path,
    checkpoint: Checkpoint,
    config: dict[str, Any],
    layers: Mapping[int, Mapping[str, Tensor]],
    record: Mapping[str, Any],
) -> None:
    """The converted model: `layers` gives the tensors by name within self_attn, the rest is the checkpoint's own.

    Tensors that are not touched keep their stored type (float32 where the checkpoint holds blocks of integers, whose
    exact values float32 has); new ones are float32.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name in checkpoint.names():
        layer = layer_of(name)
        # What a structure keeps of q_proj and o_proj it names itself.
        if layer is not None and layer in layers and name.removeprefix(prefix(layer)) in replaced(layers[layer]):
            continue
        tensors[name] = stored_tensor(checkpoint, name)
    for layer, found in layers.items():
        for name, tensor in found.items():
            tensors[prefix(layer) + name] = tensor.float().contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    for name, contents in checkpoint.tokenizer_files().items():
        (folder / name).write_bytes(contents)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def stored_tensor(checkpoint: Checkpoint, name: str) -> Tensor:
    """A tensor of a checkpoint in its stored floating-point type; float32 for blocks of integers."""
    return tensor_from_array(checkpoint.array(name), _STORED.get(checkpoint.spec(name).dtype, torch.float32))


def replaced(tensors: Mapping[str, Tensor]) -> set[str]:
    """Names within self_attn that do not come from the source: those given, and the projections they stand for."""
    return {*tensors, "k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias"}


def layer_of(name: str) -> int | None:
    """The layer of an attention tensor; None for all others."""
    parts = name.split(".")
    return int(parts[2]) if len(parts) > 4 and parts[:2] == ["model", "layers"] and parts[3] == "self_attn" else None
