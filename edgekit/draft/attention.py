"""What a draft sees of earlier positions: one attention layer over the last ones, as far as a window reaches.

A position's key and value are made of what the trunk reads there, so that each can be kept once it is made. How far
back a position lies is told by a number per head and distance, added to the score (arXiv 1910.10683, section 2.1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.layers.split import split_last


class WindowAttention(nn.Module):
    """Attention of each position over itself and at most `window` positions before it.

    G texts, T positions, d hidden size, H heads of size e sharing J keys and values, W window.
    """

    def __init__(self, hidden_size: int, heads: int, kv_heads: int, head_size: int, window: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_size, self.window = heads, kv_heads, head_size, window
        self.q_proj = nn.Linear(hidden_size, heads * head_size, bias=False)
        self.k_proj = nn.Linear(hidden_size, kv_heads * head_size, bias=False)
        self.v_proj = nn.Linear(hidden_size, kv_heads * head_size, bias=False)
        self.o_proj = nn.Linear(heads * head_size, hidden_size, bias=False)
        #: [H, W + 1] by distance.
        self.distance = nn.Parameter(torch.zeros(heads, window + 1))

    def forward(self, x: Tensor, before: int, missing: Tensor | None = None) -> Tensor:
        """[G, T - before, d] for x [G, T, d].

        Args:
            before: positions, the first ones, that are looked back at only.
            missing: int64 [G], how many of the first positions of each text there are not.
        """
        query = split_last(self.q_proj(x[:, before:]), self.heads, self.head_size).transpose(1, 2)
        key, value = (
            split_last(projection(x), self.kv_heads, self.head_size).transpose(1, 2)
            for projection in (self.k_proj, self.v_proj)
        )
        share = self.heads // self.kv_heads
        key, value = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=self._scores(x.shape[1], before, missing).to(query.dtype)
        )
        output: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return output

    def _scores(self, length: int, before: int, missing: Tensor | None) -> Tensor:
        """What is added to scores, [1 or G, H, T - before, T]; minus infinity where nothing is seen."""
        places = torch.arange(length, device=self.distance.device)
        away = places[before:, None] - places
        seen = (away >= 0) & (away <= self.window)
        scores = self.distance[:, away.clamp(0, self.window)].masked_fill(~seen, -torch.inf)[None]
        if missing is not None:
            gone = places < missing.to(places.device)[:, None]
            scores = scores.masked_fill(gone[:, None, None, :], -torch.inf)
        return scores
