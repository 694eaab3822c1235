"""Attention over factors whose b side is static: the cache holds a alone, keys are rotated when they are read.

"Non-contextual B" of arXiv 2501.06425, section 3.4. A key is K_h,m = sum_s a[m,s,h] rot_m(b[s]): the b rows are turned
by the position of the slot when it is read, so the cache needs (R_K + R_V) H numbers a token. It is composed of
standard operators and `edgekit::TPAAppend`. Letters as in `edgekit.ops.tpa_attention`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.layers.latent_keys import read_slots
from edgekit.ops.tpa_append import tpa_append


def static_b_attention(
    query: Tensor,
    a_k: Tensor,
    b_k: Tensor,
    a_v: Tensor,
    b_v: Tensor,
    past: tuple[Tensor, ...],
    attention_mask: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    scale: float,
    value_scale: float,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Append a_k and a_v to the cache and attend causally, with the masks and positions of `causal_attention`.

    But for one thing: what a padding token holds is emptied for its own row too, which nobody reads.

    Args:
        query: [B, S, H, D], not rotated.
        a_k: [B, S, R_K, H].
        b_k: static [R_K, D], not rotated.
        a_v: [B, S, R_V, H].
        b_v: static [R_V, D].
        past: (past_a_k [B, P or C, R_K, H], past_a_v [B, P or C, R_V, H]).
        attention_mask: int64 [B, T].
        cos: [max_positions, D/2].
        sin: [max_positions, D/2].
        scale: factor on the scores.
        value_scale: factor on the output.

    Returns:
        output [B, S, H, D] and the present a factors, [B, T or C, R, H].
    """
    compute = torch.float64 if query.dtype == torch.float64 else torch.float32
    present_k, present_v = tpa_append(past[0], a_k, attention_mask), tpa_append(past[1], a_v, attention_mask)
    real = attention_mask != 0
    keys_a = read_slots(present_k, attention_mask).to(compute)
    values_a = read_slots(present_v, attention_mask).to(compute)

    new, total = query.shape[1], attention_mask.shape[1]
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    slot_j = torch.arange(total, device=query.device)
    slot_i = (torch.arange(new, device=query.device) + (total - new))[:, None]
    visible = (slot_j <= slot_i) & (real[:, None] | (slot_j == slot_i))

    turn = _Rotation(cos.to(compute), sin.to(compute))
    turned_query = turn(query.to(compute), positions[:, total - new :])
    turned_b = turn(b_k.to(compute), positions)  # [B, T, R_K, D]
    products = torch.einsum("bnhd,bmsd->bhnms", turned_query, turned_b)
    scores = torch.einsum("bhnms,bmsh->bhnm", products, keys_a) * scale
    weights = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1)
    mixed = torch.einsum("bhnm,bmuh->bnhu", weights, values_a)
    output = torch.matmul(mixed, b_v.to(compute)) * value_scale
    return output.to(query.dtype), (present_k, present_v)


class _Rotation:
    """Half-split rotation as in `causal_attention`, of gathers and products alone: a trace holds no split."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos, self.sin = cos, sin

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate x [B, S, rows, D], or static [rows, D], to positions [B, S]: [B, S, rows, D]."""
        half = x.shape[-1] // 2
        columns = list(range(half))
        both = torch.tensor(columns + columns)
        swapped = torch.tensor([half + j for j in columns] + columns)
        signs = torch.tensor([-1.0] * half + [1.0] * half, dtype=x.dtype)
        cos = functional.embedding(positions, self.cos.index_select(1, both))[:, :, None]
        sin = functional.embedding(positions, self.sin.index_select(1, both) * signs)[:, :, None]
        return x * cos + x.index_select(-1, swapped) * sin
