"""The weights of a pytorch_model.bin, read without running anything that it says: the one place here that needs torch.

`torch.load(weights_only=True)` rebuilds tensors and plain containers and refuses every other instruction of the pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from edgekit.checkpoint.interface import Array
from edgekit.errors import CheckpointError
from edgekit.files import atomic_file


def read_pickled_tensors(path: Path) -> dict[str, Array]:
    """Name -> array (float32, float16 or ml_dtypes.bfloat16), as views of the mapped file.

    Raises CheckpointError for a file that is damaged, holds anything but named tensors, or other dtypes; and where
    torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise CheckpointError(
            "a pytorch_model.bin is read with torch",
            "torch is not installed here",
            "pip install 'edgekit[export]'",
        ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # noqa: BLE001 - a damaged or hostile file makes torch raise many kinds
        raise _refused(path, f"torch refuses it ({type(error).__name__}: {str(error).splitlines()[0][:120]})") from None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in content.items()
    ):
        raise _refused(path, "it holds something else")
    arrays: dict[str, Array] = {}
    for name, tensor in content.items():
        tensor = tensor.detach().contiguous()
        if tensor.dtype == torch.bfloat16:
            # NumPy's bfloat16 is unknown to torch: the bits pass as uint16.
            arrays[name] = tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        elif tensor.dtype in (torch.float32, torch.float16):
            arrays[name] = tensor.numpy()
        elif name.endswith((".attn.bias", ".attn.masked_bias", ".inv_freq")):
            continue  # buffers that are computed
        else:
            raise _refused(path, f"{name} is {tensor.dtype}")
    return arrays


def write_pickled_tensors(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write named tensors as `torch.save` does, replacing the file in one step; an array given twice is stored once."""
    import torch

    made: dict[int, Any] = {}
    for array in arrays.values():
        if id(array) not in made:
            copy = np.array(array, order="C")
            made[id(array)] = (
                torch.from_numpy(copy.view(np.uint16)).view(torch.bfloat16)
                if copy.dtype == ml_dtypes.bfloat16
                else torch.from_numpy(copy)
            )
    with atomic_file(path) as file:
        torch.save({name: made[id(array)] for name, array in arrays.items()}, file)


def _refused(path: Path, fact: str) -> CheckpointError:
    return CheckpointError(
        "a pytorch_model.bin must hold named tensors in float32, float16 or bfloat16 and nothing else",
        f"{path}: {fact}",
        "take the file that training wrote, or convert the weights to safetensors where you trust them",
    )
