"""The real SmolLM2-135M-Instruct."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize
from tokenizers import Tokenizer

from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.checkpoint.summary import checkpoint_summary

pytestmark = pytest.mark.model

PROMPTS = [
    "What is the capital of France?",
    "  spaces,\ttabs\n\n\nand new\r\nlines ",
    "1234567 + 89 = ?",
    "naïve café — 你好，世界！ שלום हिन्दी 🎉👩‍👩‍👧‍👦",
    "def f(x):\n    return x**2  # don't",
    "<|im_start|>user\nhi<|im_end|>\n",
]
#: Ids by llama.cpp (llama-cpp-python 0.3.36, Llama.tokenize with special=True, add_bos=False) on the same file.
# fmt: off
LLAMA_CPP_IDS = [
    [1780, 314, 260, 3575, 282, 4649, 47],
    [216, 5600, 28, 197, 100, 7366, 1116, 198, 397, 725, 201, 198, 5110, 216],
    [33, 34, 35, 36, 37, 38, 39, 1232, 216, 40, 41, 446, 9148],
    [3546, 46494, 37366, 1841, 216, 18645, 250, 48392, 138, 12831, 7906, 240, 178, 239, 230, 8083, 219,
     12960, 119, 31838, 23970, 162, 247, 12335, 134, 27011, 30658, 16525, 44757, 37189, 15107, 232, 227,
     10813, 235, 119, 321, 231, 10813, 235, 119, 321, 231, 10813, 235, 117, 321, 231, 10813, 235, 116],
    [1604, 275, 24, 104, 727, 472, 1003, 1792, 828, 34, 216, 907, 1326, 982],
    [1, 4093, 198, 6004, 2, 198],
]
# fmt: on


@pytest.fixture(scope="module")
def checkpoint(smollm2_path: Path) -> Checkpoint:
    return open_checkpoint(smollm2_path)


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    return Tokenizer.from_str(checkpoint.tokenizer_files()["tokenizer.json"].decode())


def test_summary(checkpoint: Checkpoint) -> None:
    summary = checkpoint_summary(checkpoint)
    assert summary["parameters"] == 134_515_008
    assert summary["bytes"] == 98_362_432
    assert {dtype: row["tensors"] for dtype, row in summary["dtypes"].items()} == {
        "Q4_1": 210,
        "Q8_0": 1,
        "float32": 61,
    }
    assert summary["tokenizer"]["vocabulary"] == 49_152


def test_configuration_is_that_of_the_published_model(checkpoint: Checkpoint) -> None:
    # config.json of HuggingFaceTB/SmolLM2-135M-Instruct.
    published = {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-05,
        "rope_theta": 100000,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "vocab_size": 49152,
        "hidden_act": "silu",
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    assert {key: checkpoint.config[key] for key in published} == published


def test_weights_are_those_of_the_gguf_library(checkpoint: Checkpoint) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 30)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(checkpoint.path).tensors}
    assert len(checkpoint.names()) == len(stored) == 272
    for name in checkpoint.names():
        tensor = stored[names.get_name(name, try_suffixes=(".weight",)) or ""]
        expected = dequantize(tensor.data, tensor.tensor_type)
        found = checkpoint.array(name)
        heads = {"q_proj": 9, "k_proj": 3}.get(name.split(".")[-2])
        if heads:
            assert not np.array_equal(found, expected)
            # Back to the file's order, as llama.cpp's converter does it.
            found = found.reshape(heads, 2, 32, 576).swapaxes(1, 2).reshape(expected.shape)
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.slow
def test_weights_are_those_of_transformers(checkpoint: Checkpoint) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    path = checkpoint.path
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    state = theirs.state_dict()
    assert set(checkpoint.names()) == set(state) - {"lm_head.weight"}
    for name in checkpoint.names():
        np.testing.assert_array_equal(checkpoint.array(name), state[name].numpy(), err_msg=name)


def test_blocks_hold_the_weights_exactly(checkpoint: Checkpoint) -> None:
    for name in (
        "model.embed_tokens.weight",
        "model.layers.7.self_attn.q_proj.weight",
        "model.layers.29.mlp.down_proj.weight",
    ):
        blocks = checkpoint.blocks(name)
        assert blocks is not None
        value = blocks.scale[..., None] * (blocks.codes.astype(np.float32) - blocks.zero_point)
        if blocks.minimum is not None:
            value = value + blocks.minimum[..., None]
        array = checkpoint.array(name)
        np.testing.assert_array_equal(value.reshape(array.shape), array)


def test_ids_are_those_of_llama_cpp(tokenizer: Tokenizer) -> None:
    assert [tokenizer.encode(prompt).ids for prompt in PROMPTS] == LLAMA_CPP_IDS


@pytest.mark.parametrize("prompt", PROMPTS)
def test_text_survives(tokenizer: Tokenizer, prompt: str) -> None:
    assert tokenizer.decode(tokenizer.encode(prompt).ids, skip_special_tokens=False) == prompt


def test_transformers_loads_the_tokenizer(checkpoint: Checkpoint, tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(checkpoint.config))
    for name, content in checkpoint.tokenizer_files().items():
        (tmp_path / name).write_bytes(content)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for prompt in PROMPTS:
        assert theirs(prompt)["input_ids"] == tokenizer.encode(prompt).ids
    assert len(theirs) == 49_152
    assert (theirs.bos_token, theirs.eos_token, theirs.model_max_length) == ("<|im_start|>", "<|im_end|>", 8192)
    chat = theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert chat == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    generation = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert (generation.bos_token_id, generation.eos_token_id) == (1, 2)
