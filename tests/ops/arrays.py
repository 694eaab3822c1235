"""NumPy arrays and torch tensors of the same bits; bfloat16 is ml_dtypes.bfloat16 in NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch


def tensor_from_array(array: np.ndarray) -> torch.Tensor:
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def array_from_tensor(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
