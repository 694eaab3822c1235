"""Attention over a whole sequence without a cache, differentiable and fast, for training.

Equal to the modules' own forward from an empty cache without padding; that is tested.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.layers.attention import Attention
from edgekit.layers.decoder import Decoder, DecoderLayer
from edgekit.layers.latent_keys import LatentKeyAttention
from edgekit.layers.split import split_last
from edgekit.layers.static_factors import StaticFactorAttention
from edgekit.ops.causal_attention import rotate


def full_attention(module: nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Output [B, S, hidden] for x [B, S, hidden]; cos and sin [max_positions, D/2]."""
    if isinstance(module, StaticFactorAttention):
        query, key = module.query(x), torch.einsum("uh,btud->bthd", module.a_k, module.key_rows(x))
        columns = list(module.columns())
        cos, sin = cos[:, columns], sin[:, columns]
    elif isinstance(module, LatentKeyAttention):
        query, key = module.query(x), module.keys(module.k_proj(x))
    elif isinstance(module, Attention):
        query, key = (split_last(p(x), p.out_features // module.shape.head_dim, module.shape.head_dim)
                      for p in (module.q_proj, module.k_proj))  # fmt: skip
    else:
        raise TypeError(type(module).__name__)
    tables = cos[: x.shape[1]].to(x.dtype)[None], sin[: x.shape[1]].to(x.dtype)[None]
    query, key = rotate(query, *tables).transpose(1, 2), rotate(key, *tables).transpose(1, 2)
    if isinstance(module, Attention):
        value = split_last(module.v_proj(x), module.shape.kv_heads, module.shape.head_dim).transpose(1, 2)
        share = module.shape.num_heads // module.shape.kv_heads
        key, value = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1)
    else:
        value = torch.einsum("uh,btue->bhte", module.a_v, module.value_rows(x))
        if module.rebuilds_values:
            # Before attention and not after it, which is the same: with heads of one size a fused kernel takes it.
            value = torch.matmul(value, module.v_up.transpose(1, 2))
    mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=module.shape.scale)
    output: Tensor = module.o_proj(mixed.transpose(1, 2).flatten(2))
    return output


def layers_of(model: Decoder) -> list[DecoderLayer]:
    """The model's layers, typed."""
    return [cast(DecoderLayer, layer) for layer in model.model.layers]


def tables_of(model: Decoder, layer: DecoderLayer) -> tuple[Tensor, Tensor]:
    """cos and sin of a layer."""
    tables = model.get_submodule(layer.rope)
    return cast(Tensor, tables.cos), cast(Tensor, tables.sin)


def layer_output(model: Decoder, layer: DecoderLayer, hidden: Tensor) -> Tensor:
    """The residual stream [B, S, hidden] after a layer, from that before it."""
    attended = full_attention(layer.self_attn, layer.input_layernorm(hidden), *tables_of(model, layer))
    hidden = hidden + attended
    output: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return output


def head_of(model: Decoder) -> Tensor:
    """The head's weight [V, hidden]."""
    head = model.model.embed_tokens if model.lm_head is None else model.lm_head
    return head.weight


def logits_of(model: Decoder, hidden: Tensor) -> Tensor:
    """Logits [B, S, V] of the last residual stream."""
    return functional.linear(model.model.norm(hidden), head_of(model))
