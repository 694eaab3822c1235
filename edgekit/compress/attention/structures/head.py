"""Head mode: fewer mixtures of whole heads. k_g ≈ Σ_j a_j,g b_j with b = U_Rᵀ k over the heads.

U_R holds the leading eigenvectors of E[K Kᵀ] in R^{G×G}, K [G, D], each head weighted by what its error costs. A
mixture of heads commutes with RoPE. The relative error² is the share of the other eigenvalues.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgekit.compress.attention.linear import floored, principal
from edgekit.compress.attention.source import LayerWeights
from edgekit.compress.attention.statistics import LayerStatistics
from edgekit.compress.attention.structures.latent import value_metric


class Head:
    """A component is a mixed head."""

    def __init__(self, side: str) -> None:
        self.side = side

    def numbers(self, head_dim: int) -> int:
        """A whole head."""
        return head_dim

    def _spectrum(self, weights: LayerWeights, statistics: LayerStatistics) -> tuple[Tensor, Tensor, Tensor]:
        """Losses [G], eigenvectors [G, G] and weights [G] of the heads."""
        groups, size = weights.shape.groups, weights.shape.head_dim
        if self.side == "key":
            moment, cost = statistics.key, statistics.key_weight.view(groups, size).mean(1)
        else:
            moment = statistics.attended.mean(0)
            cost = value_metric(weights, statistics).diagonal().view(groups, size).mean(1)
        weight = floored(cost).sqrt()
        mixed = torch.einsum("gdhd->gh", moment.view(groups, size, groups, size))
        losses, vectors = principal(weight[:, None] * mixed * weight)
        return losses / 2, vectors, weight

    def losses(self, weights: LayerWeights, statistics: LayerStatistics) -> Tensor:
        """Half the eigenvalues: ½ Σ gradient² error²."""
        return self._spectrum(weights, statistics)[0]

    def convert(
        self, weights: LayerWeights, statistics: LayerStatistics, count: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Mixed projections and the rows that spread them over the heads."""
        _, vectors, weight = self._spectrum(weights, statistics)
        down, up = vectors[:, :count].T * weight, vectors[:, :count] / weight[:, None]
        shape, name = weights.shape, self.side[0]
        matrix, bias = (weights.key, weights.key_bias) if self.side == "key" else (weights.value, weights.value_bias)
        tensors = {
            f"{name}_proj.weight": torch.einsum("rg,gdi->rdi", down, matrix).flatten(0, 1),
            f"a_{name}": torch.stack([up[shape.group(head)] for head in range(shape.heads)], 1),
        }
        if bias is not None:
            tensors[f"{name}_proj.bias"] = (down @ bias).flatten()
        if self.side == "value":
            tensors["o_proj.weight"] = weights.output.flatten(1)
        return {"structure": "head", "rank": count}, tensors


KEY, VALUE = Head("key"), Head("value")
