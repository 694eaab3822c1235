"""Configurations: published files in the old and the new style, defaults, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from edgekit.errors import ModelError
from edgekit.layers.rotary import FactorScaling, LinearScaling, Llama3Scaling, Rotary
from edgekit.models import registry

#: The fields of published config.json files that describe the model, as they were uploaded (older style).
SMOLLM2_135M: dict[str, Any] = {
    "model_type": "llama",
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
LLAMA_3_2_1B: dict[str, Any] = {
    "model_type": "llama",
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}
MISTRAL_7B: dict[str, Any] = {
    "model_type": "mistral",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
QWEN2_5_0_5B: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_0_6B: dict[str, Any] = QWEN2_5_0_5B | {
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rope_scaling": None,
    "sliding_window": None,
}
GEMMA_3_1B: dict[str, Any] = {
    "model_type": "gemma3_text",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "vocab_size": 262144,
}
PUBLISHED = {
    "smollm2-135m": SMOLLM2_135M,
    "llama-3.2-1b": LLAMA_3_2_1B,
    "mistral-7b-v0.1": MISTRAL_7B,
    "mistral-without-window": MISTRAL_7B | {"sliding_window": None},
    "qwen2.5-0.5b": QWEN2_5_0_5B,
    "qwen2.5-with-windows": QWEN2_5_0_5B | {"use_sliding_window": True, "sliding_window": 4096},
    "qwen3-0.6b": QWEN3_0_6B,
    "gemma-3-1b": GEMMA_3_1B,
    "gemma-3-scaled": GEMMA_3_1B | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
}
STEMS = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma3_text": "Gemma3Text"}


def read(d: dict[str, Any]) -> Any:
    return registry.architecture(d["model_type"]).Config.from_dict(d)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_file_equals_what_transformers_makes_of_it(name: str) -> None:
    """The old-style file and the new-style one that transformers writes for it give the same configuration."""
    d = PUBLISHED[name]
    theirs = getattr(transformers, f"{STEMS[d['model_type']]}Config")(**d)
    rewritten = theirs.to_dict()
    assert "rope_parameters" in rewritten
    assert "rope_theta" not in rewritten
    assert read(d) == read(rewritten)


def test_smollm2() -> None:
    config = read(SMOLLM2_135M)
    assert (config.num_heads, config.kv_heads, config.head_dim, config.num_layers) == (9, 3, 64, 30)
    assert (config.tied, config.rms_norm_eps, config.rotary) == (True, 1e-5, {"rope": Rotary(100_000.0)})


def test_llama3_rope() -> None:
    assert read(LLAMA_3_2_1B).rotary == {"rope": Rotary(500_000.0, Llama3Scaling(32.0, 1.0, 4.0, 8192))}


def test_mistral_windows() -> None:
    assert read(MISTRAL_7B).window == 4096
    assert read(MISTRAL_7B | {"sliding_window": None}).window == -1
    assert read({name: value for name, value in MISTRAL_7B.items() if name != "sliding_window"}).window == 4096


def test_qwen_windows() -> None:
    assert read(QWEN2_5_0_5B).windows == (-1,) * 24
    assert read(QWEN2_5_0_5B | {"use_sliding_window": True, "sliding_window": 9}).windows == (-1,) * 21 + (9,) * 3
    every = QWEN3_0_6B | {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0}
    assert read(every).windows == (9,) * 28
    assert read(every | {"sliding_window": None}).windows == (-1,) * 28


def test_gemma3_layers_and_bases() -> None:
    config = read(GEMMA_3_1B)
    assert config.windows == ((512,) * 5 + (-1,)) * 4 + (512, 512)
    assert config.rotary == {"rope": Rotary(1_000_000.0), "rope_local": Rotary(10_000.0)}
    assert (config.tied, config.score_scale, config.logit_softcap) == (True, 1 / 16, 0.0)
    scaled = read(GEMMA_3_1B | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}})
    assert scaled.rotary == {"rope": Rotary(1_000_000.0, LinearScaling(8.0)), "rope_local": Rotary(10_000.0)}


def test_explicit_factors() -> None:
    d = LLAMA_3_2_1B | {"rope_scaling": {"rope_type": "factors", "factors": [1, 2.5]}}
    assert read(d).rotary == {"rope": Rotary(500_000.0, FactorScaling((1.0, 2.5)))}


@pytest.mark.parametrize(
    ("base", "change", "words"),
    [
        (SMOLLM2_135M, {"hidden_size": None}, ["hidden_size is required", "missing"]),
        (SMOLLM2_135M, {"num_hidden_layers": "30"}, ["num_hidden_layers must be an integer", "'30'"]),
        (SMOLLM2_135M, {"num_hidden_layers": 2.5}, ["num_hidden_layers must be an integer", "2.5"]),
        (SMOLLM2_135M, {"vocab_size": 0}, ["vocab_size must be at least 1", "0"]),
        (SMOLLM2_135M, {"vocab_size": True}, ["vocab_size must be an integer", "True"]),
        (SMOLLM2_135M, {"rms_norm_eps": "small"}, ["rms_norm_eps must be a number", "'small'"]),
        (SMOLLM2_135M, {"tie_word_embeddings": "yes"}, ["tie_word_embeddings must be true or false", "'yes'"]),
        (SMOLLM2_135M, {"num_key_value_heads": 4}, ["must divide num_attention_heads", "9 / 4"]),
        (SMOLLM2_135M, {"head_dim": 63}, ["head_dim must be even", "63"]),
        (SMOLLM2_135M, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, ["'yarn'", "llama3"]),
        (SMOLLM2_135M, {"rope_scaling": "linear"}, ["rope_scaling must be a table", "'linear'"]),
        (SMOLLM2_135M, {"rope_theta": "1e4"}, ["rope_theta must be a number", "'1e4'"]),
        (SMOLLM2_135M, {"hidden_act": 3}, ["hidden_act must be a string", "3"]),
        (SMOLLM2_135M, {"partial_rotary_factor": 0.5}, ["partial_rotary_factor = 0.5"]),
        (GEMMA_3_1B, {"attn_logit_softcapping": 50.0}, ["attn_logit_softcapping = 50.0"]),
        (GEMMA_3_1B, {"use_bidirectional_attention": True}, ["use_bidirectional_attention = True"]),
        (GEMMA_3_1B, {"layer_types": ["full_attention"]}, ["layer_types", "26 layers"]),
        (GEMMA_3_1B, {"layer_types": ["chunked_attention"] * 26}, ["layer_types", "chunked_attention"]),
    ],
)
def test_refusals_name_field_and_value(base: dict[str, Any], change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ModelError) as error:
        read(base | change)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert error.value.next_step
