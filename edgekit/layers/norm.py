"""Root-mean-square normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * weight over the last axis (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class HeadRMSNorm(RMSNorm):
    """RMSNorm of each head of x [B, S, heads * size], with one weight [size] for all heads."""

    def forward(self, x: Tensor) -> Tensor:
        (size,) = self.weight.shape
        heads = x.shape[-1] // size
        if torch.onnx.is_in_onnx_export():
            # A 0 copies the axis: two Reshape nodes without arithmetic on dynamic sizes.
            split = (x, torch.tensor([0, 0, heads, size]))
            x_BSHD = torch.onnx.ops.symbolic("Reshape", split, dtype=x.dtype, shape=(*x.shape[:2], heads, size))
            joined = (super().forward(x_BSHD), torch.tensor([0, 0, heads * size]))
            return torch.onnx.ops.symbolic("Reshape", joined, dtype=x.dtype, shape=x.shape)
        return super().forward(x.view(*x.shape[:-1], heads, size)).flatten(-2)
