"""Rotary position embedding, cache append and grouped-query attention, as one operator.

`edgekit::CausalAttention` is what a traced decoder contains once per layer; the rewrite rules turn it into the form
that a target runs. The plain PyTorch code here is the reference that every form is compared with: it computes in
float32 (float64 for float64 inputs), whatever the storage type.

Letters: B batch, S new tokens, P cached tokens, T = P + S, H query heads, G key/value heads, R = H / G, D head size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgekit.ops.spec import Attributes
from edgekit.ops.specs.causal_attention import SPEC

#: Name and version of the node that a trace contains.
OPERATOR = f"{SPEC.domain}::{SPEC.name}"
OPERATOR_VERSION = SPEC.version


def causal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    attention_mask: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    num_heads: int,
    kv_heads: int,
    scale: float,
    window: int = -1,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotate query and key, append key and value to the cache, and attend causally.

    The new tokens sit in cache slots P .. T-1. Slot j is visible to the query in slot i if j <= i, and it holds a
    real token (attention_mask[b, j] != 0) or is the query's own slot (so no row is ever empty), and i - j < window
    where a window is set. A token's position, which selects its row of cos and sin, is the number of real tokens
    before it. What a padded slot or one outside every query's window holds, NaN included, has no influence on the rows
    of real tokens.

    Args:
        query: [B, S, H*D], not rotated.
        key: [B, S, G*D], not rotated.
        value: [B, S, G*D].
        past_key: [B, G, P, D], rotated; P may be 0.
        past_value: [B, G, P, D].
        attention_mask: int64 [B, T], 1 for real tokens, 0 for padding.
        cos: [max_positions, D/2], see `edgekit.layers.rotary`.
        sin: [max_positions, D/2].
        num_heads: H.
        kv_heads: G; query head h reads key/value head h // R.
        scale: factor on the scores.
        window: how many slots back a query sees, itself included; 0 or less for all.
        softcap: c in c * tanh(score / c), applied before masking; 0 for none.

    Returns:
        output [B, S, H*D], present_key [B, G, T, D], present_value [B, G, T, D], in the dtype of `query`.
    """
    if torch.onnx.is_in_onnx_export():
        inputs = (query, key, value, past_key, past_value, attention_mask, cos, sin)
        return _symbolic(inputs, num_heads, kv_heads, scale, window, softcap)
    batch, new, width = query.shape
    past, total, head_dim = past_key.shape[2], past_key.shape[2] + new, width // num_heads
    compute = torch.float64 if query.dtype == torch.float64 else torch.float32

    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, past:]
    cos, sin = cos[positions].to(compute), sin[positions].to(compute)
    query_BSHD = rotate(query.view(batch, new, num_heads, head_dim).to(compute), cos, sin)
    key_BSGD = rotate(key.view(batch, new, kv_heads, head_dim).to(compute), cos, sin)
    value_BSGD = value.view(batch, new, kv_heads, head_dim)
    present_key = torch.cat((past_key, key_BSGD.transpose(1, 2).to(query.dtype)), 2)
    present_value = torch.cat((past_value, value_BSGD.transpose(1, 2)), 2)

    query_BGRSD = query_BSHD.view(batch, new, kv_heads, -1, head_dim).permute(0, 2, 3, 1, 4)
    scores = torch.einsum("bgrsd,bgtd->bgrst", query_BGRSD, present_key.to(compute)) * scale
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    slot_i = torch.arange(past, total, device=query.device)[:, None]
    slot_j = torch.arange(total, device=query.device)
    real = (attention_mask != 0)[:, None, :]
    visible = (slot_j <= slot_i) & (real | (slot_j == slot_i))
    if window > 0:
        visible = visible & (slot_i - slot_j < window)
    weights = scores.masked_fill(~visible[:, None, None], -torch.inf).softmax(-1)

    # A weight of 0 does not silence a NaN, so slots that are padding or seen by no query are emptied. A padding token
    # still sees its own slot: that one term is added by itself.
    seen = (real & visible).any(1)[:, None, :, None]
    output = torch.einsum("bgrst,bgtd->bgrsd", weights, present_value.to(compute).masked_fill(~seen, 0))
    own = weights.diagonal(past, -2, -1)[..., None] * value_BSGD.to(compute).permute(0, 2, 1, 3)[:, :, None]
    output = output + own.masked_fill(real[:, 0, past:][:, None, None, :, None], 0)
    return output.permute(0, 3, 1, 2, 4).reshape(batch, new, width).to(query.dtype), present_key, present_value


def reference(attributes: Attributes, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The operator by the names of its operands."""
    arguments: dict[str, Any] = {**inputs, **attributes}
    outputs = causal_attention(**arguments)
    return {operand.name: tensor for operand, tensor in zip(SPEC.outputs, outputs, strict=True)}


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotation: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin).

    Args:
        x: [B, S, heads, D].
        cos: [B, S, D/2], rows already selected by position.
        sin: [B, S, D/2].
    """
    x1, x2 = x.chunk(2, -1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), -1)


def _symbolic(
    inputs: tuple[Tensor, ...], num_heads: int, kv_heads: int, scale: float, window: int, softcap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator as one node of the traced graph, with the shapes of its outputs declared."""
    query, past_key = inputs[0], inputs[3]
    present = (query.shape[0], kv_heads, past_key.shape[2] + query.shape[1], past_key.shape[3])
    output, present_key, present_value = torch.onnx.ops.symbolic_multi_out(
        OPERATOR,
        inputs,
        {"num_heads": num_heads, "kv_heads": kv_heads, "scale": scale, "window": window, "softcap": softcap},
        dtypes=(query.dtype, query.dtype, query.dtype),
        shapes=(query.shape, present, present),
        version=OPERATOR_VERSION,
    )
    return output, present_key, present_value
