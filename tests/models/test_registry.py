"""Finding architectures, and loading weights or refusing to."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from edgekit.errors import ModelError
from edgekit.layers.decoder import DEFAULT_POSITION_LIMIT
from edgekit.layers.rotary import rotary_tables
from edgekit.models import registry

KNOWN = ["gemma3_text", "llama", "llama_tpa", "mistral", "qwen2", "qwen3", "t6"]


@pytest.fixture
def checkpoint(tools: Any) -> Any:
    return tools.checkpoint_of(tools.published("llama"))


@pytest.fixture
def tied(tools: Any) -> Any:
    return tools.checkpoint_of(tools.published("llama-multi-head-tied-biases"))


def test_architectures_are_found_by_their_files() -> None:
    assert registry.architectures() == KNOWN
    for model_type in KNOWN:
        module = registry.architecture(model_type)
        assert module.__name__ == f"edgekit.models.{model_type}"
        assert module.Config
        assert module.Model


@pytest.mark.parametrize("name", ["gpt2", "registry", "_weights", "..errors", "", "None"])
def test_an_unknown_architecture_lists_the_known(name: str) -> None:
    with pytest.raises(ModelError, match=", ".join(KNOWN)) as error:
        registry.model_from_config({"model_type": name})
    assert repr(name) in error.value.fact


def test_a_multimodal_configuration_is_refused() -> None:
    with pytest.raises(ModelError, match="multimodal") as error:
        registry.model_from_config({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}})
    assert "gemma3_text" in error.value.next_step


def test_meta_model_has_shapes_and_real_tables(checkpoint: Any) -> None:
    model = registry.model_on_meta(checkpoint.config, max_positions=11)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        name: array.shape for name, array in checkpoint.arrays.items()
    }
    tables = model.rope_tables()
    cos, sin = rotary_tables(10, 11, 10_000.0)
    assert set(tables) == {"rope.cos", "rope.sin"} == {name for name, _ in model.named_buffers()}
    assert torch.equal(tables["rope.cos"], cos)
    assert torch.equal(tables["rope.sin"], sin)


def test_gemma_has_two_pairs_of_tables(tools: Any) -> None:
    model = registry.model_on_meta(tools.checkpoint_of(tools.published("gemma3")).config)
    assert set(model.rope_tables()) == {"rope.cos", "rope.sin", "rope_local.cos", "rope_local.sin"}
    assert [layer.rope for layer in model.model.layers] == ["rope_local", "rope_local", "rope", "rope_local"]


def test_length_of_the_tables(checkpoint: Any) -> None:
    assert registry.model_on_meta(checkpoint.config).max_positions == 96
    long = checkpoint.config | {"max_position_embeddings": 131_072}
    assert registry.model_on_meta(long).max_positions == DEFAULT_POSITION_LIMIT
    assert len(registry.model_on_meta(long, 20_000).rope_tables()["rope.cos"]) == 20_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_loading_casts_weights_and_keeps_tables(checkpoint: Any, dtype: torch.dtype) -> None:
    model = registry.model_from_checkpoint(checkpoint, dtype)
    assert not model.training
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert not parameter.requires_grad
        assert torch.equal(parameter, torch.from_numpy(checkpoint.arrays[name]).to(dtype))
    for name, table in model.rope_tables().items():
        assert torch.equal(model.get_buffer(name), table)
        assert table.dtype == torch.float32


def test_bfloat16_and_read_only_arrays(checkpoint: Any) -> None:
    stored = {name: array.astype(ml_dtypes.bfloat16) for name, array in checkpoint.arrays.items()}
    for array in stored.values():
        array.flags.writeable = False
    checkpoint.arrays = stored
    for dtype in (torch.float32, torch.bfloat16):
        model = registry.model_from_checkpoint(checkpoint, dtype)
        for name, parameter in model.named_parameters():
            expected = torch.from_numpy(stored[name].astype(np.float32))
            assert torch.equal(parameter.float(), expected)
        model.lm_head.weight.fill_(7.0)
        assert (stored["lm_head.weight"].astype(np.float32) != 7.0).any()


def test_half_precision_models_run(tools: Any, case: str) -> None:
    checkpoint = tools.checkpoint_of(tools.published(case))
    ids = torch.arange(1, 13)[None]
    exact = tools.run(registry.model_from_checkpoint(checkpoint, torch.float64), ids)
    low = tools.run(registry.model_from_checkpoint(checkpoint, torch.bfloat16), ids)
    assert low.logits.dtype == low.present[0][0].dtype == torch.bfloat16
    cosine = torch.nn.functional.cosine_similarity(low.logits.double().flatten(), exact.logits.flatten(), 0)
    assert cosine > 0.995


def test_weights_are_read_once_each(checkpoint: Any) -> None:
    registry.model_from_checkpoint(checkpoint)
    assert sorted(checkpoint.reads) == sorted(checkpoint.arrays)


def test_weight_map_names_transforms(tools: Any, checkpoint: Any) -> None:
    assert set(registry.weight_map(checkpoint.config).values()) == {(name, None) for name in checkpoint.arrays}
    gemma = registry.weight_map(tools.checkpoint_of(tools.published("gemma3")).config)
    shifted = {name for name, source in gemma.items() if source.transform == "plus_one"}
    assert shifted == {name for name in gemma if "norm" in name}
    assert len(shifted) == 4 * 6 + 1
    half = registry.TRANSFORMS["plus_one"](np.array([2**-12, -1.5], ml_dtypes.bfloat16))
    assert half.dtype == np.float32
    assert half.tolist() == [1 + 2**-12, -0.5]


def test_missing_weights_are_named(checkpoint: Any) -> None:
    del checkpoint.arrays["model.layers.1.mlp.up_proj.weight"], checkpoint.arrays["lm_head.weight"]
    with pytest.raises(ModelError) as error:
        registry.model_from_checkpoint(checkpoint)
    assert "llama" in error.value.rule
    assert "30 (" in error.value.rule
    assert "Missing 2 (lm_head.weight, model.layers.1.mlp.up_proj.weight); found 28 (" in error.value.fact
    assert not checkpoint.reads


def test_unexpected_weights_are_named(checkpoint: Any) -> None:
    for layer in range(7):
        checkpoint.arrays[f"model.layers.{layer}.self_attn.k_proj.bias"] = np.zeros(20, np.float32)
    with pytest.raises(ModelError) as error:
        registry.model_from_checkpoint(checkpoint)
    assert "Unexpected 7 (model.layers.0.self_attn.k_proj.bias, " in error.value.fact
    assert error.value.fact.endswith(", ...).")


def test_a_wrong_shape_is_named(checkpoint: Any) -> None:
    name = "model.layers.2.self_attn.o_proj.weight"
    checkpoint.arrays[name] = checkpoint.arrays[name].T
    with pytest.raises(ModelError) as error:
        registry.model_from_checkpoint(checkpoint)
    assert name in error.value.rule
    assert "[54, 60]" in error.value.rule
    assert "[60, 54]" in error.value.fact


def test_computed_tensors_are_ignored(checkpoint: Any) -> None:
    checkpoint.arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(5, np.float32)
    checkpoint.arrays["model.rotary_emb.inv_freq"] = np.zeros(5, np.float32)
    registry.model_from_checkpoint(checkpoint)


def test_a_tied_head_may_be_stored_if_it_is_the_embedding(tied: Any, tools: Any) -> None:
    ids = torch.arange(1, 9)[None]
    expected = tools.run(registry.model_from_checkpoint(tied), ids).logits
    tied.arrays["lm_head.weight"] = tied.arrays["model.embed_tokens.weight"].copy()
    model = registry.model_from_checkpoint(tied)
    assert model.lm_head is None
    assert torch.equal(tools.run(model, ids).logits, expected)
    tied.arrays["lm_head.weight"][100, 53] += 1
    with pytest.raises(ModelError, match=r"Unexpected 1 \(lm_head.weight\)"):
        registry.model_from_checkpoint(tied)


def test_an_unsupported_activation_is_refused(checkpoint: Any) -> None:
    checkpoint.config["hidden_act"] = "relu"
    with pytest.raises(ModelError, match="'relu'"):
        registry.model_from_checkpoint(checkpoint)


def test_too_few_or_too_many_caches_are_refused(checkpoint: Any, tools: Any) -> None:
    model = registry.model_from_checkpoint(checkpoint)
    past = tools.run(model, torch.tensor([[1, 2]])).present
    with pytest.raises(ValueError, match="zip"):
        tools.run(model, torch.tensor([[3]]), past=past[:-1])


def test_a_sequence_longer_than_the_tables_is_refused(checkpoint: Any, tools: Any) -> None:
    model = registry.model_from_checkpoint(checkpoint, max_positions=6)
    ids, mask = torch.ones(1, 7, dtype=torch.int64), torch.ones(1, 7, dtype=torch.int64)
    with pytest.raises(ModelError, match="at most 6 tokens") as error:
        tools.run(model, ids, mask)
    assert "7" in error.value.fact
    mask[0, 0] = 0
    assert tools.run(model, ids, mask).logits.isfinite().all()
