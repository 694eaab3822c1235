"""Norms and activations by their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from edgekit.errors import ModelError
from edgekit.layers.mlp import GatedMLP, activation
from edgekit.layers.norm import HeadRMSNorm, RMSNorm


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_rms_norm_formula() -> None:
    norm = RMSNorm(7, 0.5).double()
    norm.weight.data = draw(7)
    x = draw(2, 3, 7)
    expected = x / torch.sqrt((x * x).mean(-1, keepdim=True) + 0.5) * norm.weight
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-14)


def test_head_norm_treats_each_head_alone() -> None:
    norm, single = HeadRMSNorm(4, 1e-6).double(), RMSNorm(4, 1e-6).double()
    norm.weight.data = single.weight.data = draw(4)
    x = draw(2, 3, 12)
    expected = torch.cat([single(x[..., i : i + 4]) for i in (0, 4, 8)], -1)
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("gelu", lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
        ("gelu_pytorch_tanh", lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    ],
)
def test_activations(name: str, formula: object) -> None:
    x = draw(50)
    expected = torch.tensor([formula(value) for value in x.tolist()], dtype=torch.float64)  # type: ignore[operator]
    torch.testing.assert_close(activation(name)(x), expected, rtol=0, atol=1e-14)


def test_gated_mlp_formula() -> None:
    mlp = GatedMLP(3, 5, "silu", bias=True).double()
    x = draw(2, 3)
    gate = x @ mlp.gate_proj.weight.T + mlp.gate_proj.bias
    up = x @ mlp.up_proj.weight.T + mlp.up_proj.bias
    expected = (gate * torch.sigmoid(gate) * up) @ mlp.down_proj.weight.T + mlp.down_proj.bias
    torch.testing.assert_close(mlp(x), expected, rtol=0, atol=1e-14)


def test_an_unknown_activation_lists_the_known() -> None:
    with pytest.raises(ModelError, match="gelu, gelu_pytorch_tanh, silu") as error:
        activation("relu2")
    assert "'relu2'" in error.value.fact
