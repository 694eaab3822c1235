"""Tiny random T6 models of every variant, and attention over them written out head by head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgekit.layers.decoder import Decoder, Output
from edgekit.layers.tpa import TPAAttention
from edgekit.models import registry

#: Odd sizes on purpose; R_K differs from R_V.
CONFIG: dict[str, Any] = {
    "model_type": "t6",
    "vocab_size": 83,
    "hidden_size": 30,
    "intermediate_size": 41,
    "num_hidden_layers": 2,
    "num_attention_heads": 7,
    "head_dim": 10,
    "query_rank": 3,
    "key_rank": 2,
    "value_rank": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1.1920929e-07,
    "rope_table_dtype": "float32",
}

VARIANTS: dict[str, dict[str, Any]] = {
    "t6": {},
    "kv-only": {"query": "dense"},
    "static-a": {"contextual": "b"},
    "static-a-kv-only": {"contextual": "b", "query": "dense"},
    "static-b": {"contextual": "a"},
    "static-b-kv-only": {"contextual": "a", "query": "dense"},
    "shared-b": {"shared_kv_b": True, "value_rank": 2},
    "head-norm": {"head_norm": True},
    "norm-weights-rope-of-llama": {"norm_weights": True, "rope_sign": 1},
    "bfloat16-tables": {"rope_table_dtype": "bfloat16"},
    "rank-one-odd-heads": {"num_attention_heads": 47, "query_rank": 1, "key_rank": 1, "value_rank": 1},
    "untied": {"tie_word_embeddings": False},
}

#: Numbers per token and layer that each variant caches, by hand: 7 heads of 10, R_K = 2, R_V = 4.
CACHED = {
    "t6": 6 * 17,
    "kv-only": 6 * 17,
    "static-a": 6 * 10,
    "static-a-kv-only": 6 * 10,
    "static-b": 6 * 7,
    "static-b-kv-only": 6 * 7,
    "shared-b": 4 * 17,
    "rank-one-odd-heads": 2 * 57,
}


def random_model(config: dict[str, Any], seed: int = 0, dtype: torch.dtype = torch.float64) -> Decoder:
    """A model of this configuration with every parameter drawn, large enough that attention is far from flat."""
    generator = torch.Generator().manual_seed(seed)
    model = registry.model_from_config(config).to(dtype)
    for name, parameter in model.named_parameters():
        centre = 1.0 if name.endswith("norm.weight") or "subln" in name else 0.0
        spread = 0.8 if name.split(".")[-1] in ("k_a", "k_b", "v_a", "v_b", "q_a", "q_b") else 0.35
        parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator, dtype=dtype))
    return model


def random_ids(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 83, shape, generator=torch.Generator().manual_seed(seed))


def run(
    model: Decoder, ids: Tensor, mask: Tensor | None = None, past: list[tuple[Tensor, ...]] | None = None
) -> Output:
    """One call that keeps all logits; without a mask all tokens, cached ones included, are real."""
    past = model.empty_cache(len(ids)) if past is None else past
    if mask is None:
        mask = torch.ones(len(ids), past[0][0].shape[1] + ids.shape[1], dtype=torch.int64)
    with torch.no_grad():
        output: Output = model(ids, mask, past, torch.tensor([0]))
    return output


def materialised_attention(module: TPAAttention, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """What `module` gives for one unpadded row x [S, hidden], from the definition: K and V made, head by head."""
    s = module.shape
    weights = dict(module.named_parameters())
    tokens = len(x)

    def factor(name: str, side: str) -> Tensor:
        if (name, side) == ("v", "b") and s.shared_kv_b:
            name = "k"
        if f"{name}_{side}" in weights:
            return weights[f"{name}_{side}"].expand(tokens, -1, -1)
        width = s.num_heads if side == "a" else s.head_dim
        return (x @ weights[f"{name}_{side}_proj.weight"].T).reshape(tokens, -1, width)

    def turned(rows: Tensor) -> Tensor:
        half = rows.shape[-1] // 2
        c, z = cos[:tokens, None], sin[:tokens, None]
        return torch.cat((rows[..., :half] * c - rows[..., half:] * z, rows[..., half:] * c + rows[..., :half] * z), -1)

    if s.query_rank:
        query = torch.einsum("trh,trd->thd", factor("q", "a"), turned(factor("q", "b"))) / s.query_rank
    else:
        query = turned((x @ weights["q_proj.weight"].T).reshape(tokens, s.num_heads, s.head_dim))
    key = torch.einsum("trh,trd->thd", factor("k", "a"), turned(factor("k", "b"))) / s.key_rank
    value = torch.einsum("trh,trd->thd", factor("v", "a"), factor("v", "b")) / s.value_rank
    heads = []
    for h in range(s.num_heads):
        scores = query[:, h] @ key[:, h].T / s.head_dim**0.5
        scores = scores + torch.full((tokens, tokens), -torch.inf, dtype=x.dtype).triu(1)
        head = scores.softmax(-1) @ value[:, h]
        if "subln.weight" in weights:
            head = head / (head.pow(2).mean(-1, keepdim=True) + s.head_norm_eps).sqrt() * weights["subln.weight"]
        heads.append(head)
    return torch.cat(heads, -1) @ weights["o_proj.weight"].T
