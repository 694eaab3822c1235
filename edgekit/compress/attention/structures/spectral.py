"""Spectral keys: per RoPE frequency, fewer complex mixtures of the heads' rotary pairs.

At frequency f the pairs (k_g[f], k_g[f + D/2]) of the G heads are a vector z in C^G, which RoPE multiplies by one
phase. So any complex mixing of the heads commutes with it: z ≈ Σ_j m_j b_j with b_j = n_jᴴ z, and the scores
Re conj(q) z become Re conj(conj(m_j) q) b_j: the query is mixed, nothing is rebuilt. Kept are the leading eigenvectors
of E[z zᴴ], weighted by the energy of the queries, pooled over frequencies. (TransMLA's RoRoPE and FreqFold, arXiv
2502.07864, are the real-valued relatives.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgekit.compress.attention.linear import floored, principal
from edgekit.compress.attention.source import LayerWeights
from edgekit.compress.attention.statistics import LayerStatistics


def complex_moment(moment: Tensor, groups: int) -> Tensor:
    """E[z zᴴ] per frequency, [D/2, G, G], from the real E[k kᵀ] [N, N]."""
    half = len(moment) // groups // 2
    parts = moment.view(groups, 2, half, groups, 2, half)

    def part(a: int, b: int) -> Tensor:
        return torch.einsum("gfhf->fgh", parts[:, a, :, :, b, :])

    return torch.complex(part(0, 0) + part(1, 1), part(1, 0) - part(0, 1))


class Spectral:
    """A component is a rotary pair of one mixture."""

    def numbers(self, head_dim: int) -> int:
        """A real and an imaginary part."""
        return 2

    def _spectrum(self, weights: LayerWeights, statistics: LayerStatistics) -> tuple[Tensor, Tensor, Tensor]:
        """Losses [D/2, G], eigenvectors [D/2, G, G] and weights [D/2, G]."""
        groups, half = weights.shape.groups, weights.shape.head_dim // 2
        weight = floored(statistics.key_weight.view(groups, 2, half).mean(1)).sqrt().T
        moment = complex_moment(statistics.key, groups)
        losses, vectors = principal(weight[:, :, None] * moment * weight[:, None, :])
        return losses / 2, vectors, weight

    def losses(self, weights: LayerWeights, statistics: LayerStatistics) -> Tensor:
        """Half the eigenvalues, pooled over frequencies."""
        return self._spectrum(weights, statistics)[0].flatten().sort(descending=True).values

    def convert(
        self, weights: LayerWeights, statistics: LayerStatistics, count: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The kept pairs in the order of their frequencies."""
        shape, half = weights.shape, weights.shape.head_dim // 2
        losses, vectors, weight = self._spectrum(weights, statistics)
        kept = losses.flatten().sort(descending=True).indices[:count].sort().values
        frequency, which = kept // shape.groups, kept % shape.groups
        direction = vectors[frequency, :, which]  # [n, G]
        down, up = direction.conj() * weight[frequency], direction / weight[frequency]
        # Rows of unit power, so that float16 caches have room.
        moment = complex_moment(statistics.key, shape.groups)[frequency]
        power = torch.einsum("ng,ngh,nh->n", down, moment, down.conj()).real / 2
        scale = floored(power).rsqrt()
        down, up = down * scale[:, None], up / scale[:, None]

        def mixed(features: Tensor) -> Tensor:
            """[G, D, ...] of the heads to real parts, then imaginary parts [2n, ...]."""
            pairs = torch.complex(features[:, :half], features[:, half:])[:, frequency]  # [G, n, ...]
            rows = torch.einsum("ng,gn...->n...", down, pairs)
            return torch.cat((rows.real, rows.imag))

        tensors = {"k_proj.weight": mixed(weights.key)}
        if weights.key_bias is not None:
            tensors["k_proj.bias"] = mixed(weights.key_bias)
        groups = torch.tensor([shape.group(head) for head in range(shape.heads)])
        mixing = up[:, groups].T.conj()  # [H, n]
        tensors["q_mix"] = torch.stack((mixing.real, mixing.imag))
        tensors["a_k"] = torch.ones(1, shape.heads, dtype=torch.float64)
        return {"structure": "spectral", "frequencies": frequency.tolist()}, tensors


KEY = Spectral()
