"""Sizes from configurations against the real models: parameters and caches counted on the meta device."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit.errors import ModelError
from edgekit.models.registry import architectures, model_on_meta
from edgekit.plan.model_sizes import model_sizes, planned_architectures
from tests.parity.tiny_models import _COMMON, CONFIGS

#: Switches that change what a model consists of; each has at least one case.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in CONFIGS),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"head_dim": None, "hidden_size": 48}),
    ("qwen3", {"attention_bias": True, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    ("gemma3_text", {"attention_bias": True, "tie_word_embeddings": False}),
    ("t6", {"query": "dense"}),
    ("t6", {"contextual": "a"}),
    ("t6", {"contextual": "b"}),
    ("t6", {"shared_kv_b": True, "value_rank": 2}),
    ("t6", {"norm_weights": True, "head_norm": True, "tie_word_embeddings": False}),
    ("llama_tpa", {"qkv_bias": True, "output_bias": True, "mlp_bias": True}),
]


def configuration(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    config = {**_COMMON, "vocab_size": 300, **CONFIGS[name], **changes}
    return {key: value for key, value in config.items() if value is not None}


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=str)
def test_parameters_and_cache_are_those_of_the_model(name: str, changes: dict[str, Any]) -> None:
    config = configuration(name, changes)
    model, sizes = model_on_meta(config), model_sizes(config)
    assert sizes.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert [cache.numbers for cache in sizes.caches] == [
        sum(tensor.numbers for tensor in layer) for layer in model.cache_layout()
    ]
    assert sizes.rotary_tables == len(model.ropes)
    quantisable = {n: p for n, p in model.named_parameters() if n.endswith(".weight") and p.ndim == 2}
    assert sum(matrix.numbers for matrix in sizes.matrices) == sum(p.numel() for p in quantisable.values())


def test_mistral_and_its_window() -> None:
    config = configuration("llama", {"model_type": "mistral", "sliding_window": 7})
    sizes = model_sizes(config)
    assert sizes.parameters == sum(parameter.numel() for parameter in model_on_meta(config).parameters())
    # Three layers, two heads of 16, keys and values: seven tokens and no more are read.
    assert sizes.cached_numbers(5) == 3 * 64 * 5
    assert sizes.cached_numbers(500) == 3 * 64 * 7


def test_every_architecture_can_be_planned() -> None:
    assert planned_architectures() == architectures()


def test_published_counts() -> None:
    """The papers' and model cards' own figures."""
    llama2 = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    }
    assert model_sizes(llama2).parameters == 6_738_415_616
    # T6-medium: 354.0 million (arXiv 2501.06425); the feed-forward size is floor(8 · 1024 / 3).
    t6 = {
        "model_type": "t6",
        "hidden_size": 1024,
        "intermediate_size": 2730,
        "num_hidden_layers": 24,
        "num_attention_heads": 47,
        "head_dim": 64,
        "query_rank": 6,
        "key_rank": 2,
        "value_rank": 2,
        "vocab_size": 50304,
        "max_position_embeddings": 2048,
    }
    assert round(model_sizes(t6).parameters / 1e6, 1) == 354.0
    # 444 numbers a token and layer: (2 + 2)(47 + 64).
    assert model_sizes(t6).cache_numbers == 24 * 444


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"model_type": "bert"}, "model_type"),
        ({"text_config": {"model_type": "gemma3_text"}}, "text-only"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError) as caught:
        model_sizes(configuration("llama", changes))
    assert named in caught.value.rule


def test_factors_that_say_no_layer_are_refused() -> None:
    with pytest.raises(ModelError, match="attention_factors"):
        model_sizes(configuration("llama_tpa", {"attention_factors": [{"key": {}}] * 3}))
    with pytest.raises(ModelError, match="3 layers"):
        model_sizes(configuration("llama_tpa", {"attention_factors": []}))
