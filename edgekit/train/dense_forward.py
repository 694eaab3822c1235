"""The training forward: whole windows at once, keys and values materialised for PyTorch's fused attention.

It computes what the models of `edgekit.models` compute on a full, unpadded window, with gradients and without a cache.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.errors import ModelError
from edgekit.layers.attention import Attention
from edgekit.layers.decoder import Decoder
from edgekit.layers.rotary import RotaryTables
from edgekit.layers.tpa import TPAAttention
from edgekit.ops.causal_attention import rotate


def dense_logits(model: Decoder, ids: Tensor) -> Tensor:
    """Logits [B, S, V] of windows [B, S] that start at position 0."""
    x = model.model.embed_tokens(ids)
    for layer in model.model.layers:
        tables = model.get_submodule(str(layer.rope))
        assert isinstance(tables, RotaryTables)
        cos, sin = tables.cos[: ids.shape[1]][None], tables.sin[: ids.shape[1]][None]
        x = x + _attention(layer.self_attn, layer.input_layernorm(x), cos, sin)  # type: ignore[operator,arg-type]
        x = x + layer.mlp(layer.post_attention_layernorm(x))  # type: ignore[operator]
    head = model.model.embed_tokens if model.lm_head is None else model.lm_head
    return functional.linear(model.model.norm(x), head.weight)


def dense_loss(model: Decoder, windows: Tensor) -> Tensor:
    """Mean negative log-likelihood, in nats, of tokens 1 .. S of windows [B, S + 1]."""
    logits = dense_logits(model, windows[:, :-1])
    return functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())


def _attention(module: torch.nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    if isinstance(module, TPAAttention):
        return _tensor_product(module, x, cos, sin)
    if isinstance(module, Attention) and module.shape.window < 0 and module.q_norm is None:
        return _grouped(module, x, cos, sin)
    raise ModelError(
        "training supports tensor product attention and plain grouped-query attention",
        f"{type(module).__name__} is neither",
        "train another architecture",
    )


def _tensor_product(module: TPAAttention, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    shape = module.shape
    a_q, b_q = module.query(x)
    query = rotate(b_q, cos, sin)
    if a_q is not None:
        query = a_q.transpose(-1, -2) @ query
    a_k, b_k = module.factor("k", "a", x), module.factor("k", "b", x)
    b_k = rotate(b_k.expand(*x.shape[:2], -1, -1), cos, sin)
    key = a_k.transpose(-1, -2) @ b_k
    value = module.factor("v", "a", x).transpose(-1, -2) @ module.factor("v", "b", x)
    heads = functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=True, scale=shape.scale
    )
    heads = heads.transpose(1, 2) / shape.value_rank
    if module.subln is not None:
        heads = module.subln(heads)
    output: Tensor = module.o_proj(heads.flatten(2))
    return output


def _grouped(module: Attention, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    shape = module.shape
    query = rotate(module.q_proj(x).unflatten(-1, (shape.num_heads, -1)), cos, sin)
    key = rotate(module.k_proj(x).unflatten(-1, (shape.kv_heads, -1)), cos, sin)
    value = module.v_proj(x).unflatten(-1, (shape.kv_heads, -1))
    groups = shape.num_heads // shape.kv_heads
    heads = functional.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2).repeat_interleave(groups, 1),
        value.transpose(1, 2).repeat_interleave(groups, 1),
        is_causal=True,
        scale=shape.scale,
    )
    output: Tensor = module.o_proj(heads.transpose(1, 2).flatten(2))
    return output
