"""The model with static factors: every mixture of structures, cached and padded, in float64; refusals; tracing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from edgekit.contract import CacheTensor
from edgekit.errors import ModelError
from edgekit.export.trace import traced_from_config
from edgekit.layers.decoder import Decoder
from edgekit.models.registry import model_from_config

EXACT = {"key": {"structure": "exact"}, "value": {"structure": "exact"}}
MIXED = [
    EXACT,
    {
        "key": {"structure": "spectral", "frequencies": [0, 0, 3, 5, 7]},
        "value": {"structure": "latent", "rank": 9},
    },
    {"key": {"structure": "latent", "rank": 7}, "value": {"structure": "head", "rank": 1}},
    {
        "key": {"structure": "head", "rank": 1},
        "value": {"structure": "latent", "rank": 5, "folded": True},
    },
    {"key": {"structure": "latent", "rank": 11}, "value": {"structure": "latent", "rank": 3}},
]
CONFIG: dict[str, Any] = {
    "model_type": "llama_tpa",
    "vocab_size": 50,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": len(MIXED),
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "tie_word_embeddings": True,
    "qkv_bias": True,
    "attention_factors": MIXED,
}
ALL = torch.tensor([0])


@pytest.fixture
def model() -> Decoder:
    torch.manual_seed(0)
    made = model_from_config(CONFIG).double()
    for name, parameter in made.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    return made


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, 50, (batch, length), generator=torch.Generator().manual_seed(1))


def test_prefill_and_decode_equal_the_whole_with_ragged_rows(model: Decoder) -> None:
    ids, mask = tokens(3, 13), torch.ones(3, 13, dtype=torch.int64)
    mask[0, :4] = 0
    mask[1, :1] = 0
    whole = model(ids, mask, model.empty_cache(3), ALL).logits
    cut = model(ids[:, :7], mask[:, :7], model.empty_cache(3), ALL)
    parts, present = [cut.logits], cut.present
    for start, end in ((7, 8), (8, 11), (11, 13)):
        step = model(ids[:, start:end], mask[:, :end], present, ALL)
        parts.append(step.logits)
        present = step.present
    real = mask.bool()
    torch.testing.assert_close(torch.cat(parts, 1)[real], whole[real], rtol=0, atol=1e-12)
    assert [tuple(tensor.shape) for tensor in present[1]] == [(3, 13, 1, 10), (3, 13, 1, 9)]


def test_padding_has_no_influence_even_where_its_cache_is_nan(model: Decoder) -> None:
    ids = tokens(1, 9)
    alone = model(ids, torch.ones_like(ids), model.empty_cache(1), ALL).logits
    padded, mask = torch.cat((tokens(1, 3), ids), 1), torch.ones(1, 12, dtype=torch.int64)
    mask[0, :3] = 0
    first = model(padded[:, :8], mask[:, :8], model.empty_cache(1), ALL)
    for layer in first.present:
        for tensor in layer:
            tensor[:, :3] = torch.nan
    rest = model(padded[:, 8:], mask, first.present, ALL).logits
    torch.testing.assert_close(rest, alone[:, 5:], rtol=0, atol=1e-12)


def test_only_the_distance_between_tokens_matters(model: Decoder) -> None:
    ids = tokens(1, 10)
    before = model(ids, torch.ones_like(ids), model.empty_cache(1), ALL).logits
    # float64 tables on both sides: those of the model are rounded to float32.
    frequencies = 500.0 ** -(torch.arange(0, 16, 2, dtype=torch.float64) / 16)
    base = torch.arange(64, dtype=torch.float64)[:, None] * frequencies
    shifted = base + 17 * frequencies
    rope: Any = model.get_submodule("rope")
    rope.cos, rope.sin = base.cos(), base.sin()
    expected = model(ids, torch.ones_like(ids), model.empty_cache(1), ALL).logits
    rope.cos, rope.sin = shifted.cos(), shifted.sin()
    found = model(ids, torch.ones_like(ids), model.empty_cache(1), ALL).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(before, expected, rtol=0, atol=1e-4)
    rope.cos, rope.sin = (2 * base).cos(), (2 * base).sin()
    assert (model(ids, torch.ones_like(ids), model.empty_cache(1), ALL).logits - expected).abs().max() > 1e-6


def test_the_cache_is_what_the_configuration_says(model: Decoder) -> None:
    assert model.cache_layout() == [
        (CacheTensor("key_b", (2, 16)), CacheTensor("value_b", (2, 16))),
        (CacheTensor("key_b", (1, 10)), CacheTensor("value_b", (1, 9))),
        (CacheTensor("key_latent", (1, 7)), CacheTensor("value_b", (1, 16))),
        (CacheTensor("key_b", (1, 16)), CacheTensor("value_b", (1, 5))),
        (CacheTensor("key_latent", (1, 11)), CacheTensor("value_b", (1, 3))),
    ]


def test_it_traces_to_one_operator_per_layer() -> None:
    operators = Counter(node.op for node in traced_from_config(CONFIG).graph.nodes)
    assert operators["TPAAttention"] == 3
    assert operators["TPAAppend"] == 4  # keys and values of the two layers whose keys are rebuilt


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"key": {"structure": "fourier"}, "value": {"structure": "exact"}}, "exact, head, spectral, latent"),
        ({"key": {"structure": "exact"}, "value": {"structure": "spectral"}}, "exact, head, latent"),
        ({"key": {"structure": "exact"}}, '"key" and "value"'),
        ({"key": {"structure": "head", "rank": 3}, "value": {"structure": "exact"}}, "from 1 to 2"),
        ({"key": {"structure": "exact"}, "value": {"structure": "latent", "rank": 33}}, "from 1 to 32"),
        ({"key": {"structure": "latent", "rank": 0}, "value": {"structure": "exact"}}, "from 1 to 32"),
        ({"key": {"structure": "spectral", "frequencies": [8]}, "value": {"structure": "exact"}}, "below 8"),
        ({"key": {"structure": "exact"}, "value": {"structure": "exact", "folded": True}}, "latent values only"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(layer: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        model_from_config({**CONFIG, "attention_factors": [layer, *MIXED[1:]]})


def test_a_missing_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="each of the 5 layers"):
        model_from_config({**CONFIG, "attention_factors": MIXED[1:]})
