from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.checkpoint import open_checkpoint
from edgekit.checkpoint.summary import checkpoint_summary

UP = "model.layers.0.mlp.up_proj.weight"


def test_a_gguf_file(gguf_file: Callable[..., Path], weights_of: Callable[..., Any]) -> None:
    weights = weights_of("llama")
    path = gguf_file(weights=weights, types={UP: "Q8_0"})
    summary = checkpoint_summary(open_checkpoint(path))
    assert summary["parameters"] == sum(weight.size for weight in weights.values())
    assert summary["bytes"] == path.stat().st_size
    assert summary["dtypes"]["Q8_0"] == {"tensors": 1, "parameters": 96 * 64, "bytes": 96 * 64 // 32 * 34}
    assert list(summary["dtypes"]) == ["float32", "Q8_0"]  # largest first
    assert summary["tokenizer"] == {
        "kind": "BPE",
        "vocabulary": 300,
        "special_tokens": 3,
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "eos_token_ids": [2],
        "chat_template": True,
    }


def test_a_directory_without_tokenizer(hf_directory: Callable[..., Path]) -> None:
    config = {"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8}
    summary = checkpoint_summary(open_checkpoint(hf_directory({"w": np.zeros((3, 5), np.float16)}, config=config)))
    assert summary["parameters"] == 15
    assert summary["dtypes"] == {"float16": {"tensors": 1, "parameters": 15, "bytes": 30}}
    assert summary["tokenizer"] is None
    assert "no tokenizer" in summary["tokenizer_error"]


def test_special_tokens_written_as_objects(hf_directory: Callable[..., Path]) -> None:
    files = {
        "tokenizer.json": '{"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]},'
        ' "added_tokens": [{"content": "<s>", "special": true}, {"content": "b", "special": false}]}',
        "tokenizer_config.json": '{"bos_token": {"content": "<s>", "lstrip": false}}',
        "generation_config.json": '{"eos_token_id": [1, 2]}',
    }
    tokenizer = checkpoint_summary(open_checkpoint(hf_directory({"w": np.zeros(2, np.float32)}, files=files)))[
        "tokenizer"
    ]
    assert tokenizer == {
        "kind": "Unigram",
        "vocabulary": 3,
        "special_tokens": 1,
        "bos_token": "<s>",
        "eos_token_ids": [1, 2],
        "chat_template": False,
    }


@pytest.mark.parametrize(
    ("files", "fact"),
    [
        ({"tokenizer.json": "{"}, "not valid JSON"),
        ({"tokenizer.json": '{"model": 7}'}, "unknown structure"),
        ({"tokenizer.json": '{"model": {"vocab": [7]}}'}, "unknown structure"),
        ({"tokenizer.json": "{}", "tokenizer_config.json": '{"eos_token": {"text": "x"}}'}, "unknown structure"),
    ],
)
def test_a_broken_tokenizer_does_not_hide_the_rest(
    hf_directory: Callable[..., Path], files: dict[str, str], fact: str
) -> None:
    summary = checkpoint_summary(open_checkpoint(hf_directory({"w": np.zeros(2, np.float32)}, files=files)))
    assert summary["parameters"] == 2
    assert summary["tokenizer"] is None
    assert fact in summary["tokenizer_error"]
