"""Exact: the key/value heads themselves, a_j = 1 for the heads of group j (arXiv 2501.06425, section 3.5, without the
factors G and 1/G that cancel). Saves nothing; shows that the rest of the path is right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgekit.compress.attention.source import LayerWeights, SourceShape
from edgekit.compress.attention.statistics import LayerStatistics


def mask_rows(shape: SourceShape) -> Tensor:
    """[G, H]: 1 where head h reads group g."""
    rows = torch.zeros(shape.groups, shape.heads, dtype=torch.float64)
    for head in range(shape.heads):
        rows[shape.group(head), head] = 1
    return rows


class Exact:
    """All components, always: one per key/value head."""

    def __init__(self, side: str) -> None:
        self.side = side

    def numbers(self, head_dim: int) -> int:
        """A whole head."""
        return head_dim

    def losses(self, weights: LayerWeights, statistics: LayerStatistics) -> Tensor:
        """Leaving one out is not offered."""
        return torch.full((weights.shape.groups,), torch.inf, dtype=torch.float64)

    def convert(
        self, weights: LayerWeights, statistics: LayerStatistics | None, count: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The projection as it is, and masks."""
        matrix, bias = (weights.key, weights.key_bias) if self.side == "key" else (weights.value, weights.value_bias)
        name = self.side[0]
        tensors = {f"{name}_proj.weight": matrix.flatten(0, 1), f"a_{name}": mask_rows(weights.shape)}
        if bias is not None:
            tensors[f"{name}_proj.bias"] = bias.flatten()
        if self.side == "value":
            tensors["o_proj.weight"] = weights.output.flatten(1)
        return {"structure": "exact"}, tensors


KEY, VALUE = Exact("key"), Exact("value")
