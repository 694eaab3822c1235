"""Joint latents: the features of all heads from fewer numbers.

Values: r numbers of a token serve all heads; each head's output is rebuilt after attention (v̄_h ≈ Up_h Down v̄), so
nothing is rebuilt per cached token. The metric is the output projection weighted by the loss's gradient behind it, and
the moments are those of *attended* values, head by head: Up_h is the least-squares solution for its head, and Down is
improved from the principal axes by a few steps of L-BFGS on the expected loss.

Keys: k ≈ Up Down (k - mean) + mean before RoPE; does not commute with it, so keys are rebuilt when they are read.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgekit.compress.attention.linear import floored, principal, root, unit_rms
from edgekit.compress.attention.source import LayerWeights
from edgekit.compress.attention.statistics import LayerStatistics

#: Steps of L-BFGS on the values' subspace.
REFINEMENT = 8


def head_metrics(weights: LayerWeights, statistics: LayerStatistics) -> Tensor:
    """Per head W_Oᵀ diag(gradient) W_O, [H, D, D]: what an error of its output costs."""
    gradient = floored(statistics.output_gradient)
    found: Tensor = torch.einsum("oha,o,ohb->hab", weights.output, gradient, weights.output)
    return found


def value_metric(weights: LayerWeights, statistics: LayerStatistics) -> Tensor:
    """What an error of a token's values costs, [N, N]: blocks of `head_metrics` summed over each group's heads."""
    shape, heads = weights.shape, head_metrics(weights, statistics)
    blocks = heads.view(shape.groups, shape.share, shape.head_dim, shape.head_dim).sum(1)
    metric: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return metric


class LatentKey:
    """A component is a number of the latent."""

    def numbers(self, head_dim: int) -> int:
        """One."""
        return 1

    def _axes(self, statistics: LayerStatistics) -> tuple[Tensor, Tensor, Tensor]:
        weight = floored(statistics.key_weight).sqrt()
        centred = statistics.key - torch.outer(statistics.key_mean, statistics.key_mean)
        losses, vectors = principal(weight[:, None] * centred * weight)
        return losses / 2, vectors, weight

    def losses(self, weights: LayerWeights, statistics: LayerStatistics) -> Tensor:
        """Half the eigenvalues of the weighted covariance."""
        return self._axes(statistics)[0]

    def convert(
        self, weights: LayerWeights, statistics: LayerStatistics, count: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """k_proj to the latent; k_up and k_bias back."""
        _, vectors, weight = self._axes(statistics)
        down, up = vectors[:, :count].T * weight, vectors[:, :count] / weight[:, None]
        scale = unit_rms(down, statistics.key)
        down, up = down * scale[:, None], up / scale
        mean = statistics.key_mean
        # k = W x + c, and k - mean is projected: what does not depend on x is a bias of the rebuilt key.
        constant = torch.zeros_like(mean) if weights.key_bias is None else weights.key_bias.flatten()
        tensors = {
            "k_proj.weight": down @ weights.key.flatten(0, 1),
            "k_up": up.T,
            "k_bias": mean + up @ (down @ (constant - mean)),
        }
        return {"structure": "latent", "rank": count}, tensors


class LatentValue:
    """A component is a number of the latent."""

    def numbers(self, head_dim: int) -> int:
        """One."""
        return 1

    def _axes(self, weights: LayerWeights, statistics: LayerStatistics) -> tuple[Tensor, Tensor]:
        turn = root(value_metric(weights, statistics))
        losses, vectors = principal(turn @ statistics.attended.mean(0) @ turn.T)
        return losses / 2, vectors.T @ turn

    def losses(self, weights: LayerWeights, statistics: LayerStatistics) -> Tensor:
        """Half the eigenvalues of the attended moment in the output's metric."""
        return self._axes(weights, statistics)[0]

    def convert(
        self, weights: LayerWeights, statistics: LayerStatistics, count: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """v_proj to the latent, v_up per head."""
        shape = weights.shape
        down = self._axes(weights, statistics)[1][:count]
        whole = count == shape.groups * shape.head_dim
        if not whole:
            down = refined(down, head_metrics(weights, statistics), statistics.attended, shape.share)
        down = down * unit_rms(down, statistics.attended.mean(0))[:, None]
        if whole:  # nothing to fit: the inverse, whatever was measured
            rows = torch.linalg.inv(down).view(shape.groups, shape.head_dim, count)
            up = torch.stack([rows[shape.group(head)] for head in range(shape.heads)])
        else:
            up = readers(down, statistics.attended, shape.share)
        tensors = {
            "v_proj.weight": down @ weights.value.flatten(0, 1),
            "v_up": up,
            "a_v": torch.ones(1, shape.heads, dtype=torch.float64),
            "o_proj.weight": weights.output.flatten(1),
        }
        if weights.value_bias is not None:
            tensors["v_proj.bias"] = down @ weights.value_bias.flatten()
        return {"structure": "latent", "rank": count}, tensors


def readers(down: Tensor, attended: Tensor, share: int) -> Tensor:
    """The least-squares Up_h [H, D, r] for v̄_h ≈ Up_h Down v̄."""
    gram, cross = _normal_equations(down, attended, share)
    found: Tensor = torch.linalg.solve(gram, cross).transpose(1, 2)
    return found


def refined(down: Tensor, metrics: Tensor, attended: Tensor, share: int) -> Tensor:
    """A better Down [r, N] for the readers that go with it, by L-BFGS; orthonormalised on the way for conditioning."""
    start = torch.linalg.qr(down.T)[0].T
    free = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([free], max_iter=REFINEMENT, history_size=8, line_search_fn="strong_wolfe")
    unit = metrics.diagonal(dim1=1, dim2=2).mean() * attended.diagonal(dim1=1, dim2=2).mean()

    def closure() -> Tensor:
        optimizer.zero_grad()
        gram, cross = _normal_equations(free, attended, share)
        explained = torch.einsum("hrd,hre,hde->", torch.linalg.solve(gram, cross), cross, metrics)
        loss = -explained / unit
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found: Tensor = torch.linalg.qr(free.detach().T)[0].T
    return found


def _normal_equations(down: Tensor, attended: Tensor, share: int) -> tuple[Tensor, Tensor]:
    """Per head Down C Downᵀ [H, r, r] (with a little ridge) and Down C restricted to the head's own group [H, r, D]."""
    heads, size = len(attended), attended.shape[1] // (len(attended) // share)
    projected = torch.einsum("rn,hnm->hrm", down, attended)
    gram = torch.einsum("hrn,sn->hrs", projected, down)
    ridge = 1e-10 * gram.diagonal(dim1=1, dim2=2).mean(1)
    gram = gram + ridge[:, None, None] * torch.eye(len(down), dtype=down.dtype)
    own = [projected[h, :, (h // share) * size : (h // share + 1) * size] for h in range(heads)]
    return gram, torch.stack(own)


KEY, VALUE = LatentKey(), LatentValue()
