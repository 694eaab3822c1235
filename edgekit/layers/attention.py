"""Multi-head attention with grouped keys and values, over the operator CausalAttention."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgekit.contract import LayerCache, key_value_cache
from edgekit.layers.norm import HeadRMSNorm
from edgekit.ops.causal_attention import causal_attention


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of one attention layer; `window` as in `causal_attention`."""

    hidden_size: int
    num_heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int = -1


class Attention(nn.Module):
    """Projections, optional normalisation of each head's query and key, attention, output projection."""

    def __init__(
        self,
        shape: AttentionShape,
        *,
        qkv_bias: bool = False,
        output_bias: bool = False,
        qk_norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.shape = shape
        query_size, kv_size = shape.num_heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, query_size, bias=qkv_bias)
        self.k_proj = nn.Linear(shape.hidden_size, kv_size, bias=qkv_bias)
        self.v_proj = nn.Linear(shape.hidden_size, kv_size, bias=qkv_bias)
        self.o_proj = nn.Linear(query_size, shape.hidden_size, bias=output_bias)
        if qk_norm_eps is not None:
            self.q_norm: HeadRMSNorm | None = HeadRMSNorm(shape.head_dim, qk_norm_eps)
            self.k_norm: HeadRMSNorm | None = HeadRMSNorm(shape.head_dim, qk_norm_eps)
        else:
            self.q_norm = self.k_norm = None

    def cache_tensors(self) -> LayerCache:
        """What this layer keeps of earlier tokens: rotated keys and values."""
        return key_value_cache(self.shape.kv_heads, self.shape.head_dim)

    def forward(
        self, x: Tensor, past: tuple[Tensor, ...], attention_mask: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Output [B, S, hidden] and the present keys and values [B, G, T, D] for x [B, S, hidden]."""
        shape = self.shape
        query, key, value = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        output, present_key, present_value = causal_attention(
            query,
            key,
            value,
            past[0],
            past[1],
            attention_mask,
            cos,
            sin,
            num_heads=shape.num_heads,
            kv_heads=shape.kv_heads,
            scale=shape.scale,
            window=shape.window,
        )
        return self.o_proj(output), (present_key, present_value)
