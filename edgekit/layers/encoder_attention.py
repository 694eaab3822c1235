"""Attention in both directions, over padded batches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, heads: int) -> Tensor:
    """softmax(q kᵀ / sqrt(D) + bias) v for each head.

    Args:
        query, key, value: [B, S, H * D].
        bias: of the same dtype, [B, 1 or H, S, S].

    Returns:
        [B, S, H * D].
    """
    if torch.onnx.is_in_onnx_export():
        # The ONNX operator takes and gives the heads side by side: no reshaping in the graph.
        attended = torch.onnx.ops.attention(query, key, value, bias, q_num_heads=heads, kv_num_heads=heads)
        return attended[0]
    batch, length = query.shape[:2]
    q, k, v = (tensor.view(batch, length, heads, -1).transpose(1, 2) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(-2)


def padding_bias(attention_mask: Tensor, dtype: torch.dtype, relative: Tensor | None = None) -> Tensor:
    """What hides padding from every query, and adds `relative` [1, H, S, S] elsewhere: [B, 1 or H, S, S].

    The most negative finite number, not infinity: a row of padding alone then has equal weights instead of NaN.

    Args:
        attention_mask: int64 [B, S], zeros for padding.
    """
    batch, length = attention_mask.shape
    seen = attention_mask.new_zeros((1, 1, 1, 1), dtype=dtype) if relative is None else relative
    # Expanded over the queries because ONNX Runtime's Attention takes no mask that leaves them out.
    every = seen.expand(batch, seen.shape[1], length, length)
    return every.masked_fill(attention_mask[:, None, None, :] == 0, torch.finfo(dtype).min)
