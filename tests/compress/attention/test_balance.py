"""Rescaling what is cached: the module's output stays, and the sizes are those that are asked for."""

from __future__ import annotations

import pytest
import torch

from edgekit.compress.attention.balance import balanced, evened
from edgekit.heal.full_attention import full_attention, layers_of, tables_of
from edgekit.models.registry import model_from_config
from tests.models.test_llama_tpa import CONFIG


@pytest.mark.parametrize("rescale", [balanced, evened])
def test_the_output_stays(rescale: object) -> None:
    torch.manual_seed(0)
    model = model_from_config({**CONFIG, "qkv_bias": True}).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 11, CONFIG["hidden_size"], dtype=torch.float64)
    changed = 0
    for layer in layers_of(model):
        before = full_attention(layer.self_attn, x, *tables_of(model, layer))
        tensors = dict(layer.self_attn.named_parameters())
        found = rescale(tensors)  # type: ignore[operator]
        assert found.keys() == tensors.keys()
        changed += sum(not torch.equal(found[name], tensors[name]) for name in tensors)
        layer.self_attn.load_state_dict(found)
        torch.testing.assert_close(full_attention(layer.self_attn, x, *tables_of(model, layer)), before)
    assert changed > 0


def test_balanced_numbers_are_read_alike_and_keep_their_mean_square() -> None:
    torch.manual_seed(0)
    spread = torch.tensor([8.0, 2.0, 0.5])
    made = balanced({"v_up": torch.randn(4, 50, 3) * spread, "v_proj.weight": torch.ones(3, 7)})
    torch.testing.assert_close(
        made["v_up"].square().mean((0, 1)), torch.full((3,), 1.0).mul(made["v_up"].square().mean())
    )
    assert made["v_proj.weight"].square().mean() == pytest.approx(1.0)
    assert made["v_proj.weight"][:, 0].tolist() == sorted(made["v_proj.weight"][:, 0].tolist(), reverse=True)
    made = balanced({"k_up": torch.randn(3, 50) * spread[:, None], "k_proj.weight": torch.ones(3, 7)})
    power = made["k_up"].square().mean(1)
    torch.testing.assert_close(power, power.mean().expand(3))
    made = balanced({"q_mix": torch.randn(2, 50, 3) * spread, "k_proj.weight": torch.ones(6, 7)})
    power = made["q_mix"].square().sum(0).mean(0)
    torch.testing.assert_close(power, power.mean().expand(3))
    torch.testing.assert_close(made["k_proj.weight"][:3], made["k_proj.weight"][3:])


def test_evened_rows_have_one_norm() -> None:
    torch.manual_seed(0)
    rows = torch.randn(6, 40) * torch.tensor([9.0, 3.0, 1.0, 9.0, 3.0, 1.0])[:, None]
    made = evened({"v_up": torch.ones(2, 5, 6), "v_proj.weight": rows})
    torch.testing.assert_close(made["v_proj.weight"].norm(dim=1), made["v_proj.weight"].norm(dim=1).mean().expand(6))
    made = evened({"q_mix": torch.ones(2, 5, 3), "k_proj.weight": rows})
    pairs = made["k_proj.weight"].view(2, 3, 40).square().sum((0, 2))
    torch.testing.assert_close(pairs, pairs.mean().expand(3))
