"""A linear layer whose matrix is stored as a sum: a dense or block-quantised base, low rank, and single weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.ops.tt_sparse_linear import tt_sparse_linear


class CompressedLinear(nn.Module):
    """y = W₀ x + (A B)ᵀ x + S x + bias, where the last two summands are one `edgekit::TTSparseLinear`.

    Args:
        linear: the dense layer in whose place it is; its bias is taken over, and its weight as W₀ if there is a base.
        base: whether there is a W₀.
        attributes: of the operator.
        operands: of the operator, but for x: name -> (shape, NumPy name of the dtype). They become parameters of these
            names, without values.
    """

    def __init__(
        self,
        linear: nn.Linear,
        base: bool,
        attributes: Mapping[str, Any],
        operands: Mapping[str, tuple[tuple[int, ...], str]],
    ) -> None:
        super().__init__()
        self.attributes, self.operands = dict(attributes), tuple(operands)
        self.weight = linear.weight if base else None
        self.bias = linear.bias
        for name, (shape, dtype) in operands.items():
            empty = torch.empty(shape, dtype=getattr(torch, dtype), device=linear.weight.device)
            self.register_parameter(name, nn.Parameter(empty, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, out] for [B, S, in]."""
        y = tt_sparse_linear(self.attributes, {"x": x, **{name: getattr(self, name) for name in self.operands}})
        if self.weight is not None:
            return functional.linear(x, self.weight, self.bias) + y
        return y if self.bias is None else y + self.bias
