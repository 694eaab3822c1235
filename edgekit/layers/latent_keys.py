"""Attention whose cache holds a latent of the keys that is not rotated: keys are rebuilt and rotated when read.

A joint low rank of all key heads does not commute with RoPE, so each step rebuilds every key, K = latent k_up + k_bias,
and rotates it by the position of its slot. It reaches a smaller cache than structures that commute and reads it at a
higher price: T rank G D multiply-adds per step. Composed of standard operators and `edgekit::TPAAppend`.

Letters as in `edgekit.layers.static_factors`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekit.contract import KEY_LATENT, CacheTensor, LayerCache
from edgekit.layers.attention import AttentionShape
from edgekit.layers.split import split_last
from edgekit.layers.static_factors import LayerFactors, ValueSide
from edgekit.ops.tpa_append import tpa_append


class LatentKeyAttention(ValueSide):
    """k_proj to the latent, k_up from it to the G keys; values as in `StaticFactorAttention`."""

    def __init__(
        self,
        shape: AttentionShape,
        factors: LayerFactors,
        *,
        qkv_bias: bool = False,
        output_bias: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.factors = shape, factors
        self.q_proj = nn.Linear(shape.hidden_size, shape.num_heads * shape.head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(shape.hidden_size, factors.key.rank, bias=False)
        self.k_up = nn.Parameter(torch.zeros(factors.key.rank, shape.kv_heads * shape.head_dim))
        # The bias holds the keys' mean, which then takes no rank.
        self.k_bias = nn.Parameter(torch.zeros(shape.kv_heads * shape.head_dim))
        self.add_value_side(output_bias, qkv_bias)

    def cache_tensors(self) -> LayerCache:
        """The keys' latent [rank] as one row, and value rows."""
        return CacheTensor(KEY_LATENT, (1, self.factors.key.rank)), self.value_cache()

    def query(self, x: Tensor) -> Tensor:
        """[B, S, H, D], not rotated."""
        return split_last(self.q_proj(x), self.shape.num_heads, self.shape.head_dim)

    def group_keys(self, latent: Tensor) -> Tensor:
        """Keys [B, T, G, D], not rotated, of a latent [B, T, rank]."""
        rebuilt = torch.matmul(latent, self.k_up) + self.k_bias
        return split_last(rebuilt, self.shape.kv_heads, self.shape.head_dim)

    def keys(self, latent: Tensor) -> Tensor:
        """Keys of the H query heads [B, T, H, D], not rotated, of a latent [B, T, rank]."""
        return self.group_keys(latent).repeat_interleave(self.shape.num_heads // self.shape.kv_heads, 2)

    def forward(
        self, x: Tensor, past: tuple[Tensor, ...], attention_mask: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Output [B, S, hidden] and the present cache for x [B, S, hidden]; masks as in `causal_attention`.

        But for one thing: what a padding token holds is emptied for its own row too, which nobody reads.
        """
        compute = torch.float64 if x.dtype == torch.float64 else torch.float32
        present_key = tpa_append(past[0], split_last(self.k_proj(x), 1, self.factors.key.rank), attention_mask)
        present_value = tpa_append(past[1], self.value_rows(x), attention_mask)
        real = attention_mask != 0
        latent, value = read_slots(present_key, attention_mask), read_slots(present_value, attention_mask)
        first = attention_mask.shape[1] - x.shape[1]

        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
        cos, sin = cos.to(compute)[positions], sin.to(compute)[positions]
        query = _rotated(self.query(x).to(compute), cos[:, first:], sin[:, first:])
        key = _rotated(self.group_keys(latent.squeeze(2)).to(compute), cos, sin).permute(0, 2, 3, 1)  # [B, G, D, T]
        # Heads of a group share its key: [B, S, H, D] to [B, G, S * (H / G), D], so that no key is copied.
        share = self.shape.num_heads // self.shape.kv_heads
        query = torch.unflatten(query, 2, (-1, share)).permute(0, 2, 1, 3, 4).flatten(2, 3)
        slots = torch.arange(attention_mask.shape[1], device=x.device)
        slot_i = slots[first:][:, None]
        visible = (slots <= slot_i) & (real[:, None] | (slots == slot_i))
        scores = torch.unflatten(torch.matmul(query, key), 2, (-1, share)).transpose(2, 3).flatten(1, 2)
        scores = scores * self.shape.scale
        weights = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1)  # [B, H, S, T]
        # The rows are summed as they are; the static factor weights the sums, not T rows per head.
        rows, width = self.factors.value.rows(), self.factors.value.row_size(self.shape.head_dim)
        sums = torch.matmul(weights.flatten(1, 2), value.to(compute).flatten(2))
        sums = torch.unflatten(sums, 1, (self.shape.num_heads, -1))
        factors = self.a_v.to(compute).T[:, None, :, None]  # [H, 1, R_V, 1]
        output = (torch.unflatten(sums, -1, (rows, width)) * factors).sum(-2).transpose(1, 2)
        return self.project(output.to(x.dtype)), (present_key, present_value)


def read_slots(cache: Tensor, attention_mask: Tensor) -> Tensor:
    """The first T slots of a cache [B, T or C, R, W], those of padding emptied: a weight of 0 silences no NaN."""
    total = attention_mask.shape[1]
    if torch.onnx.is_in_onnx_export():
        # One Slice to the mask's length: what lies behind it in a longer buffer is not part of the cache.
        ends = torch.onnx.ops.symbolic(
            "Shape", (attention_mask,), {"start": 1, "end": 2}, dtype=torch.int64, shape=(1,)
        )
        inputs = (cache, torch.tensor([0]), ends, torch.tensor([1]))
        shape = (cache.shape[0], total, cache.shape[2], cache.shape[3])
        cache = torch.onnx.ops.symbolic("Slice", inputs, dtype=cache.dtype, shape=shape)
    else:
        cache = cache[:, :total]
    return cache.masked_fill((attention_mask == 0)[:, :, None, None], 0)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`edgekit.ops.causal_attention.rotate`, by slices: they trace to one node each."""
    half = x.shape[-1] // 2
    x1, x2 = x[..., :half], x[..., half:]
    cos, sin = cos[:, :, None], sin[:, :, None]
    return torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), -1)
