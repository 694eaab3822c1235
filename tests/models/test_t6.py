"""The T6 of every variant: against the definition, cached against whole, shifted, ragged; its sizes and refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from edgekit.errors import ModelError
from edgekit.models import registry
from edgekit.models.t6 import Config, parameter_count
from tests.models.t6_tools import CACHED, CONFIG, VARIANTS, materialised_attention, random_ids, random_model, run

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(params=VARIANTS)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return CONFIG | VARIANTS[request.param]


def test_attention_is_the_definition(config: dict[str, Any]) -> None:
    model = random_model(config)
    module, tables = model.model.layers[1].self_attn, model.rope
    x = torch.randn(1, 19, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    past = tuple(x.new_empty(tensor.shape(1, 0)) for tensor in module.cache_tensors())
    found, present = module(x, past, torch.ones(1, 19, dtype=torch.int64), tables.cos, tables.sin)
    expected = materialised_attention(module, x[0], tables.cos.double(), tables.sin.double())
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found[0], expected, **EXACT)
    assert [tuple(p.shape) for p in present] == [tensor.shape(1, 19) for tensor in module.cache_tensors()]


def test_prefill_and_decode_give_the_whole_forward(config: dict[str, Any]) -> None:
    model, ids = random_model(config), random_ids(2, 17)
    whole = run(model, ids)
    past = None
    for begin, end in ((0, 9), (9, 10), (10, 14), (14, 17)):
        part = run(model, ids[:, begin:end], past=past)
        past = part.present
        torch.testing.assert_close(part.logits, whole.logits[:, begin:end], **EXACT)
    for layer, expected in zip(past, whole.present, strict=True):
        for tensor, other in zip(layer, expected, strict=True):
            torch.testing.assert_close(tensor, other, **EXACT)


def test_rows_of_a_ragged_batch_are_those_of_the_row_alone(config: dict[str, Any]) -> None:
    """Padding at the left holds NaN in the cache, which must reach no real row."""
    model, ids = random_model(config), random_ids(3, 11)
    lengths = (11, 7, 1)
    mask = torch.tensor([[0] * (11 - n) + [1] * n for n in lengths])
    first = run(model, ids[:, :8], mask[:, :8])
    past = [
        tuple(tensor.masked_fill((mask[:, :8] == 0)[:, :, None, None], torch.nan) for tensor in layer)
        for layer in first.present
    ]
    second = run(model, ids[:, 8:], mask, past)
    for row, n in enumerate(lengths):
        alone = run(model, ids[row : row + 1, 11 - n :]).logits[0]
        together = torch.cat((first.logits[row], second.logits[row]))[11 - n :]
        torch.testing.assert_close(together, alone, **EXACT)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "bfloat16-tables"])
def test_only_distances_matter(name: str) -> None:
    """The same text three positions later gives the same attention: tables shifted by three rows."""
    model, ids = random_model(CONFIG | VARIANTS[name]), random_ids(1, 13)
    before = run(model, ids).logits
    # Angles in float64 here: those rounded to float32 are themselves off by 1e-8.
    angles = torch.arange(64, dtype=torch.float64)[:, None] * 10000.0 ** -(torch.arange(0, 10, 2).double() / 10)
    sign = model.rope.sign
    model.rope.cos, model.rope.sin = angles.cos(), sign * angles.sin()
    exact = run(model, ids).logits
    model.rope.cos, model.rope.sin = angles.cos()[3:], sign * angles.sin()[3:]
    shifted = run(model, ids).logits
    torch.testing.assert_close(shifted, exact, rtol=0, atol=1e-12)
    torch.testing.assert_close(before, exact, rtol=0, atol=1e-4)
    # A test that positions matter at all: all tokens at one position give something else.
    model.rope.cos, model.rope.sin = torch.ones(64, 5).double(), torch.zeros(64, 5).double()
    assert (run(model, ids).logits - exact).abs().max() > 1e-2


def test_rotation_turns_the_other_way_by_a_negated_table() -> None:
    ours, llamas = (registry.model_from_config(CONFIG | {"rope_sign": sign}).rope for sign in (-1, 1))
    assert torch.equal(ours.cos, llamas.cos)
    assert torch.equal(ours.sin, -llamas.sin)
    assert llamas.sin[1, 0] == pytest.approx(math.sin(1.0))


def test_tables_are_rounded_as_in_training() -> None:
    rope = registry.model_from_config(CONFIG | {"rope_table_dtype": "bfloat16"}).rope
    t = torch.arange(64).float()
    inverse = 1.0 / (10000 ** (torch.arange(0, 10, 2).float() / 10))
    angles = torch.outer(t, inverse)
    assert torch.equal(rope.cos, angles.cos().bfloat16().float())
    assert torch.equal(rope.sin, -angles.sin().bfloat16().float())
    assert not torch.equal(rope.cos, angles.cos())


@pytest.mark.parametrize("name", CACHED)
def test_what_is_cached(name: str) -> None:
    layout = registry.model_on_meta(CONFIG | VARIANTS[name]).cache_layout()
    assert [sum(tensor.numbers for tensor in layer) for layer in layout] == [CACHED[name]] * 2


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "millions"),
    [(12, 768, 34, 124.3), (24, 1024, 47, 354.0), (36, 1280, 61, 773.7), (48, 1600, 78, 1555.8)],
)
def test_parameter_counts_of_the_published_sizes(layers: int, hidden: int, heads: int, millions: float) -> None:
    """Table of arXiv 2501.06425: R_Q = 6, R_K = R_V = 2, head size 64, vocabulary 50304, tied embedding."""
    published = CONFIG | {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "head_dim": 64,
        "query_rank": 6,
        "value_rank": 2,
        "intermediate_size": 8 * hidden // 3,
        "vocab_size": 50304,
        "max_position_embeddings": 1024,
    }
    count = parameter_count(Config.from_dict(published))
    ffn = 8 * hidden // 3
    assert count == layers * hidden * (10 * (heads + 64) + heads * 64 + 3 * ffn) + 50304 * hidden
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"rms_norm_eps": None}, "rms_norm_eps is required"),
        ({"head_dim": None}, "head_dim is required"),
        ({"intermediate_size": None}, "intermediate_size is required"),
        ({"key_rank": None}, "key_rank is required"),
        ({"key_rank": 0}, "key_rank must be at least 1"),
        ({"value_rank": 1.5}, "value_rank must be an integer"),
        ({"query": "sparse"}, "query must be one of factored, dense"),
        ({"query_rank": None}, "query_rank is required"),
        ({"contextual": "c"}, "contextual must be one of both, a, b"),
        ({"shared_kv_b": True}, "shared_kv_b needs key_rank = value_rank"),
        ({"shared_kv_b": "yes"}, "shared_kv_b must be true or false"),
        ({"rope_sign": 0}, "rope_sign must be one of -1, 1"),
        ({"rope_sign": True}, "rope_sign must be one of -1, 1"),
        ({"rope_table_dtype": "float16"}, "rope_table_dtype must be one of float32, bfloat16"),
        ({"num_key_value_heads": 1}, "num_key_value_heads has no meaning"),
        ({"head_dim": 9}, "head_dim must be even"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps must be above 0"),
    ],
)
def test_refusals_name_the_field(change: dict[str, Any], names: str) -> None:
    with pytest.raises(ModelError, match=names):
        Config.from_dict(CONFIG | change)
