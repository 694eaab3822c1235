from __future__ import annotations

import pytest

from edgekit.compress.units import is_matrix, unit_of, units_of

LAYER = "model.layers.7"


@pytest.mark.parametrize(
    ("weight", "unit"),
    [
        (f"{LAYER}.self_attn.q_proj.weight", f"{LAYER}.self_attn.qkv_proj"),
        (f"{LAYER}.self_attn.k_proj.weight", f"{LAYER}.self_attn.qkv_proj"),
        (f"{LAYER}.self_attn.v_proj.weight", f"{LAYER}.self_attn.qkv_proj"),
        (f"{LAYER}.self_attn.o_proj.weight", f"{LAYER}.self_attn.o_proj"),
        (f"{LAYER}.mlp.gate_proj.weight", f"{LAYER}.mlp.gate_up_proj"),
        (f"{LAYER}.mlp.up_proj.weight", f"{LAYER}.mlp.gate_up_proj"),
        (f"{LAYER}.mlp.down_proj.weight", f"{LAYER}.mlp.down_proj"),
        ("lm_head.weight", "lm_head"),
        ("model.embed_tokens.weight", "lm_head"),
    ],
)
def test_the_unit_of_a_weight(weight: str, unit: str) -> None:
    assert unit_of(weight) == unit


def test_units_keep_the_order_of_their_weights() -> None:
    names = [f"{LAYER}.{part}.weight" for part in ("mlp.up_proj", "self_attn.o_proj", "mlp.gate_proj")]
    units = units_of(names)
    assert list(units) == [f"{LAYER}.mlp.gate_up_proj", f"{LAYER}.self_attn.o_proj"]
    assert units[f"{LAYER}.mlp.gate_up_proj"] == [names[0], names[2]]


def test_a_tied_embedding_is_the_head() -> None:
    assert units_of(["model.embed_tokens.weight"]) == {"lm_head": ["model.embed_tokens.weight"]}


def test_an_embedding_beside_a_head_is_no_unit() -> None:
    assert units_of(["model.embed_tokens.weight", "lm_head.weight"]) == {"lm_head": ["lm_head.weight"]}


@pytest.mark.parametrize(
    ("name", "shape", "verdict"),
    [
        ("lm_head.weight", (10, 4), True),
        ("model.norm.weight", (4,), False),
        (f"{LAYER}.self_attn.q_proj.bias", (4,), False),
        ("rope.cos", (8, 4), False),
    ],
)
def test_matrices(name: str, shape: tuple[int, ...], verdict: bool) -> None:
    assert is_matrix(name, shape) is verdict
