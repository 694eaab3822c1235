"""Draft heads as a module: CP mixture heads over the n tokens after a known one (arXiv 2410.17765, section 3).

    u = trunk(features of positions up to t, rows of the tokens after each in the token table)
    w = softmax(R u)                                                                  r components
    v_{s,alpha} = norm(u + U_s silu(D_s u) + U_{s,alpha} silu(D_{s,alpha} u))         s = 1..n
    p_alpha^{(s)} = softmax(E v_{s,alpha}) over the draft vocabulary                  E shared with the model
    q(x_{t+2..t+1+n} | x_{<=t+1}) = sum_alpha w_alpha prod_s p_alpha^{(s)}(x_{t+1+s})

The features are the residual stream of some layers, side by side. The known token is conditioned on, since it is chosen
by the time a draft is made.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.draft.attention import WindowAttention
from edgekit.draft.config import DraftConfig
from edgekit.layers.mlp import GatedMLP
from edgekit.layers.norm import RMSNorm


class DraftHeads(nn.Module):
    """The heads, without the token table that they read and the model's unembedding that they speak through.

    G texts of T positions, N rows, n tokens, r components, d hidden size, F features, D draft vocabulary.
    """

    def __init__(self, config: DraftConfig) -> None:
        super().__init__()
        c, d = config, config.hidden_size
        self.config = config
        self.feature_norms = nn.ModuleList(RMSNorm(d, c.eps) for _ in c.feature_layers)
        self.project = nn.Linear(c.features + c.token_rank, d, bias=False)
        self.attention_norm = RMSNorm(d, c.eps) if c.window else None
        self.attention = WindowAttention(d, c.heads, c.kv_heads, c.head_size, c.window) if c.window else None
        self.trunk_norm = RMSNorm(d, c.eps)
        self.trunk = GatedMLP(d, c.trunk_width, "silu", False)
        self.mixture = nn.Linear(d, c.rank, bias=False)
        self.down = nn.Parameter(torch.empty(c.tokens, c.residual_rank, d))
        self.up = nn.Parameter(torch.empty(c.tokens, d, c.residual_rank))
        self.component_down = nn.Parameter(torch.empty(c.tokens, c.rank, c.component_rank, d))
        self.component_up = nn.Parameter(torch.empty(c.tokens, c.rank, d, c.component_rank))
        self.norm = RMSNorm(d, c.eps)

    def trunk_output(self, features: Tensor, token: Tensor, before: int = 0, missing: Tensor | None = None) -> Tensor:
        """u [G, T - before, d] from features [G, T, F] and rows of the token table [G, T, token_rank].

        Args:
            before: positions, the first ones, that are looked back at only.
            missing: int64 [G], how many of the first positions of each text there are not; None for none.
        """
        parts = torch.split(features, self.config.hidden_size, -1)
        read = [norm(part) for norm, part in zip(self.feature_norms, parts, strict=True)]
        x = self.project(torch.cat([*read, token], -1))
        # Norms in the type of their weights, also where products are narrower.
        x = x.to(self.trunk_norm.weight.dtype)
        u = x[:, before:]
        if self.attention is not None and self.attention_norm is not None:
            u = u + self.attention(self.attention_norm(x), before, missing)
        output: Tensor = u + self.trunk(self.trunk_norm(u))
        return output

    def log_weights(self, u: Tensor) -> Tensor:
        """log w [N, r]."""
        return functional.log_softmax(self.mixture(u).float(), -1)

    def positions(self, u: Tensor) -> Tensor:
        """v [N, n, r, d] before the unembedding."""
        c = self.config
        inner = functional.silu(functional.linear(u, self.down.flatten(0, 1)))
        inner = inner.view(-1, c.tokens, c.residual_rank)
        v = u[:, None] + torch.einsum("nsk,sdk->nsd", inner, self.up)
        v = v[:, :, None].expand(-1, -1, c.rank, -1)
        if c.component_rank:
            own = functional.silu(functional.linear(u, self.component_down.flatten(0, 2)))
            own = own.view(-1, c.tokens, c.rank, c.component_rank)
            v = v + torch.einsum("nsak,sadk->nsad", own, self.component_up)
        normed: Tensor = self.norm(v.to(self.norm.weight.dtype))
        return normed
