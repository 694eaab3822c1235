"""Random attention layers in float64, and what a converted one computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgekit.compress.attention.source import LayerWeights, SourceShape
from edgekit.compress.attention.statistics import LayerStatistics
from edgekit.layers.attention import Attention, AttentionShape
from edgekit.layers.latent_keys import LatentKeyAttention
from edgekit.layers.rotary import rotary_tables
from edgekit.layers.static_factors import LayerFactors, StaticFactorAttention

#: Odd on purpose: three groups of three heads.
SHAPE = SourceShape(layers=1, hidden=46, heads=9, groups=3, head_dim=10)
LAYER = AttentionShape(SHAPE.hidden, SHAPE.heads, SHAPE.groups, SHAPE.head_dim, SHAPE.head_dim**-0.5)
TOKENS = 23


def random_layer(seed: int = 0, *, bias: bool = False) -> tuple[Attention, LayerWeights]:
    """A grouped-query layer and its weights as a conversion reads them."""
    torch.manual_seed(seed)
    source = Attention(LAYER, qkv_bias=bias).double()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        parameter.requires_grad_(False)
    heads, groups, size, hidden = SHAPE.heads, SHAPE.groups, SHAPE.head_dim, SHAPE.hidden
    weights = LayerWeights(
        SHAPE,
        source.q_proj.weight.view(heads, size, hidden),
        source.k_proj.weight.view(groups, size, hidden),
        source.v_proj.weight.view(groups, size, hidden),
        source.o_proj.weight.view(hidden, heads, size),
        source.k_proj.bias.view(groups, size) if bias else None,
        source.v_proj.bias.view(groups, size) if bias else None,
    )
    return source, weights


def random_inputs(seed: int = 1, tokens: int = TOKENS) -> Tensor:
    """[1, tokens, hidden] of correlated features."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(SHAPE.hidden, SHAPE.hidden, generator=generator, dtype=torch.float64)
    return torch.randn(1, tokens, SHAPE.hidden, generator=generator, dtype=torch.float64) @ mixing / SHAPE.hidden**0.5


def moments_of(source: Attention, x: Tensor, seed: int = 2) -> LayerStatistics:
    """Statistics of these inputs, with random gradients; attention of each head drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    key, value = source.k_proj(x)[0], source.v_proj(x)[0]
    count = len(key)
    attention = torch.rand(SHAPE.heads, count, count, generator=generator, dtype=torch.float64).softmax(-1)
    attended = attention @ value
    return LayerStatistics(
        key=key.T @ key / count,
        key_mean=key.mean(0),
        attended=attended.transpose(1, 2) @ attended / count,
        query_energy=torch.rand(SHAPE.groups, SHAPE.head_dim // 2, generator=generator, dtype=torch.float64) + 0.1,
        key_gradient=torch.rand(key.shape[1], generator=generator, dtype=torch.float64) + 0.1,
        output_gradient=torch.rand(SHAPE.hidden, generator=generator, dtype=torch.float64) + 0.1,
    )


def converted_layer(
    source: Attention, key: tuple[dict[str, Any], dict[str, Tensor]], value: tuple[dict[str, Any], dict[str, Tensor]]
) -> StaticFactorAttention | LatentKeyAttention:
    """The module that config entries and tensors of both sides describe, with the source's queries."""
    factors = LayerFactors.from_dict({"key": key[0], "value": value[0]}, SHAPE.groups, SHAPE.head_dim)
    kind = LatentKeyAttention if factors.key.structure == "latent" else StaticFactorAttention
    module = kind(LAYER, factors, qkv_bias=source.q_proj.bias is not None).double()
    state = {f"q_proj.{name}": value for name, value in source.q_proj.named_parameters()}
    module.load_state_dict({**state, **key[1], **value[1]})
    return module.requires_grad_(False)


def tables(positions: int = 64) -> tuple[Tensor, Tensor]:
    """cos and sin, float64."""
    cos, sin = rotary_tables(SHAPE.head_dim, positions, 100.0)
    return cos.double(), sin.double()


def run(module: torch.nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Output from an empty cache."""
    if mask is None:
        mask = torch.ones(x.shape[:2], dtype=torch.int64)
    past = tuple(x.new_empty(tensor.shape(len(x), 0)) for tensor in module.cache_tensors())  # type: ignore[operator]
    output: Tensor = module(x, past, mask, *tables())[0]
    return output
