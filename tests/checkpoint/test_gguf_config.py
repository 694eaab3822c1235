from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.checkpoint import open_checkpoint
from edgekit.errors import CheckpointError


def llama3_divisors(theta: float, dim: int, factor: float) -> list[float]:
    """llama.cpp's convert_hf_to_gguf.py (LlamaModel.generate_extra_tensors) with Llama 3's parameters, as a loop."""
    low, high, context = 1.0, 4.0, 8192
    divisors = []
    for i in range(0, dim, 2):
        wavelength = 2 * np.pi * theta ** (i / dim)
        if wavelength < context / high:
            divisors.append(1.0)
        elif wavelength > context / low:
            divisors.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return divisors


def test_configuration_of_llama(gguf_file: Callable[..., Path]) -> None:
    config = open_checkpoint(gguf_file()).config
    assert config == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,  # not the float32 9.999999747378752e-06
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }


def test_untied_head_and_biases_are_seen(gguf_file: Callable[..., Path], weights_of: Callable[..., Any]) -> None:
    weights = weights_of("llama", biases=True) | {"lm_head.weight": np.zeros((300, 64), np.float32)}
    config = open_checkpoint(gguf_file(weights=weights)).config
    assert config["tie_word_embeddings"] is False
    assert config["attention_bias"] is True


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
def test_transformers_takes_the_configuration_and_the_weights(
    gguf_file: Callable[..., Path], weights_of: Callable[..., Any], architecture: str
) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    metadata = {"gemma3.attention.sliding_window": 8} if architecture == "gemma3" else {}
    weights = weights_of(architecture, biases=architecture == "qwen2")
    checkpoint = open_checkpoint(gguf_file(architecture=architecture, weights=weights, metadata=metadata))
    config = checkpoint.config
    model_class = getattr(transformers, config["architectures"][0])
    model = model_class(model_class.config_class(**{k: v for k, v in config.items() if k != "model_type"}))
    assert model.config.model_type == config["model_type"]
    state = {name: torch.from_numpy(checkpoint.array(name).copy()) for name in checkpoint.names()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert unexpected == []
    assert missing == ["lm_head.weight"]  # tied


def test_rope_factors_of_llama_3_become_its_rule(gguf_file: Callable[..., Path]) -> None:
    factors = np.array(llama3_divisors(500000.0, 16, 32.0), np.float32)
    assert 1 < factors[4] < 32  # one in the interpolated range, or the test shows little
    path = gguf_file(metadata={"llama.rope.freq_base": 500000.0}, extra_tensors={"rope_freqs.weight": factors})
    checkpoint = open_checkpoint(path)
    assert checkpoint.config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert "rope_freqs.weight" not in checkpoint.names()


def test_other_rope_factors_are_passed_on(gguf_file: Callable[..., Path]) -> None:
    factors = np.array([1, 1, 1, 2, 2, 4, 4, 8], np.float32)
    config = open_checkpoint(gguf_file(extra_tensors={"rope_freqs.weight": factors})).config
    assert config["rope_scaling"] == {"rope_type": "factors", "factors": [1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0]}


def test_rope_factors_of_one_are_no_scaling(gguf_file: Callable[..., Path]) -> None:
    config = open_checkpoint(gguf_file(extra_tensors={"rope_freqs.weight": np.ones(8, np.float32)})).config
    assert config["rope_scaling"] is None


@pytest.mark.parametrize("factors", [[1.0] * 7, [1.0] * 7 + [0.0], [1.0] * 7 + [float("nan")], [[1.0] * 8]])
def test_rope_factors_that_cannot_be_are_refused(gguf_file: Callable[..., Path], factors: list[Any]) -> None:
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight"):
        open_checkpoint(gguf_file(extra_tensors={"rope_freqs.weight": np.array(factors, np.float32)}))


def test_two_rules_of_rope_scaling_are_refused(gguf_file: Callable[..., Path]) -> None:
    metadata = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    for factors, refused in ((np.full(8, 2, np.float32), True), (np.ones(8, np.float32), False)):
        path = gguf_file(metadata=metadata, extra_tensors={"rope_freqs.weight": factors})
        if refused:
            with pytest.raises(CheckpointError, match="the rule 'linear'"):
                open_checkpoint(path)
        else:
            assert open_checkpoint(path).config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"scaling.type": "linear", "scaling.factor": 8.0}, {"rope_type": "linear", "factor": 8.0}),
        ({"scaling.type": "none"}, None),
        ({"scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"scale_linear": 1.0}, None),
        (
            {"scaling.type": "yarn", "scaling.factor": 4.0, "scaling.original_context_length": 32},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        ),
    ],
)
def test_rope_scaling_keys(gguf_file: Callable[..., Path], keys: dict[str, Any], expected: Any) -> None:
    path = gguf_file(metadata={f"llama.rope.{key}": value for key, value in keys.items()})
    assert open_checkpoint(path).config["rope_scaling"] == expected


def test_gemma_3_layers(gguf_file: Callable[..., Path]) -> None:
    config = open_checkpoint(gguf_file(architecture="gemma3")).config
    assert config["layer_types"] == ["full_attention", "full_attention"]
    path = gguf_file(
        architecture="gemma3",
        metadata={"gemma3.attention.sliding_window": 512, "gemma3.attention.sliding_window_pattern": 2},
    )
    config = open_checkpoint(path).config
    assert config["layer_types"] == ["sliding_attention", "full_attention"]
    assert config["sliding_window"] == 512
    assert config["rope_local_base_freq"] == 10000.0
    assert config["query_pre_attn_scalar"] == 16
    assert config["model_type"] == "gemma3_text"


def test_a_number_for_each_layer_is_taken_where_all_are_equal(gguf_file: Callable[..., Path]) -> None:
    assert (
        open_checkpoint(gguf_file(metadata={"llama.attention.head_count_kv": [2, 2]})).config["num_key_value_heads"]
        == 2
    )
    with pytest.raises(CheckpointError, match="differs from layer to layer"):
        open_checkpoint(gguf_file(metadata={"llama.attention.head_count_kv": [2, 1]}))


@pytest.mark.parametrize(
    ("metadata", "fact"),
    [
        ({"llama.embedding_length": None}, "'llama.embedding_length' is missing"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon' is missing"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "not a positive number"),
        ({"llama.rope.freq_base": -1.0}, "not a positive number"),
        ({"llama.attention.head_count": "many"}, "not a positive integer"),
        ({"llama.attention.head_count": 0}, "not a positive integer"),
        ({"llama.block_count": 4_000_000_000}, "says 4000000000 layers, but there are tensors of 2"),
        ({"llama.block_count": 1}, "says 1 layers"),
        ({"llama.attention.value_length": 8}, "attention.value_length is 8, the head size 16"),
        ({"llama.rope.dimension_count": 4}, "rope.dimension_count is 4"),
        ({"llama.attention.key_length": 15}, "head size 15 is odd"),
        ({"tokenizer.ggml.bos_token_id": 300}, "tokenizer.ggml.bos_token_id is 300"),
    ],
)
def test_metadata_that_contradict_the_file_are_refused(
    gguf_file: Callable[..., Path], metadata: dict[str, Any], fact: str
) -> None:
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(gguf_file(metadata=metadata))
    assert fact in error.value.fact


def test_heads_that_do_not_divide_the_rows_are_refused(gguf_file: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(gguf_file(metadata={"llama.attention.head_count": 5}))
    with pytest.raises(CheckpointError, match="64 rows, which 5 heads"):
        checkpoint.array("model.layers.0.self_attn.q_proj.weight")
