"""Splitting the last axis into heads or ranks and joining it again, as plain Reshape nodes in a trace."""

from __future__ import annotations

import torch
from torch import Tensor


def split_last(x: Tensor, count: int, size: int) -> Tensor:
    """[B, S, count * size] -> [B, S, count, size]."""
    if torch.onnx.is_in_onnx_export():
        return _reshape(x, [0, 0, count, size], (*x.shape[:2], count, size))
    return x.view(*x.shape[:-1], count, size)


def join_last(x: Tensor) -> Tensor:
    """[B, S, count, size] -> [B, S, count * size]."""
    if torch.onnx.is_in_onnx_export():
        width = int(x.shape[2]) * int(x.shape[3])
        return _reshape(x, [0, 0, width], (*x.shape[:2], width))
    return x.flatten(-2)


def _reshape(x: Tensor, target: list[int], shape: tuple[int | torch.SymInt, ...]) -> Tensor:
    # A 0 copies the axis: no arithmetic on dynamic sizes.
    reshaped: Tensor = torch.onnx.ops.symbolic("Reshape", (x, torch.tensor(target)), dtype=x.dtype, shape=shape)
    return reshaped
