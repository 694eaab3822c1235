from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.checkpoint import open_checkpoint
from edgekit.errors import CheckpointError

TOKENIZER = '{"version": "1.0", "model": {"type": "BPE"}}'
NAMED = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]


@pytest.fixture
def files_of(hf_directory: Callable[..., Path]) -> Callable[..., dict[str, bytes]]:
    """The tokenizer files that a directory with these files gives."""

    def read(files: dict[str, str | bytes], config: dict[str, Any] | None = None) -> dict[str, bytes]:
        weights = {"w": np.zeros(2, np.float32)}
        config = {"model_type": "llama"} | (config or {})
        return open_checkpoint(hf_directory(weights, files=files, config=config)).tokenizer_files()

    return read


def test_files_are_passed_on(files_of: Callable[..., dict[str, bytes]]) -> None:
    settings = '{"bos_token": "<s>", "model_max_length": 1000000000000000019884624838656}'
    given = {
        "tokenizer.json": TOKENIZER,
        "tokenizer_config.json": settings,
        "special_tokens_map.json": '{"bos_token": "<s>"}',
        "generation_config.json": '{"eos_token_id": [2, 3], "temperature": 0.6}',
    }
    files = files_of(given)
    assert sorted(files) == sorted(given)
    assert files["tokenizer.json"] == TOKENIZER.encode()
    assert files["special_tokens_map.json"] == given["special_tokens_map.json"].encode()
    for name in ("tokenizer_config.json", "generation_config.json"):
        assert json.loads(files[name]) == json.loads(given[name])


@pytest.mark.parametrize(
    ("extra", "template"),
    [
        ({}, None),
        ({"chat_template.jinja": "J ü"}, "J ü"),
        ({"tokenizer_config.json": json.dumps({"chat_template": "C"})}, "C"),
        ({"tokenizer_config.json": json.dumps({"chat_template": NAMED})}, "D"),
        ({"tokenizer_config.json": json.dumps({"chat_template": NAMED[:1]})}, "T"),
        ({"tokenizer_config.json": json.dumps({"chat_template": {"default": "D", "rag": "R"}})}, "D"),
        ({"chat_template.json": json.dumps({"chat_template": "L"})}, "L"),
        ({"chat_template.jinja": "J", "tokenizer_config.json": json.dumps({"chat_template": "C"})}, "J"),
    ],
)
def test_the_default_template_is_found(
    files_of: Callable[..., dict[str, bytes]], extra: dict[str, str], template: str | None
) -> None:
    files = files_of({"tokenizer.json": TOKENIZER, **extra})
    assert files.get("chat_template.jinja") == (None if template is None else template.encode())
    assert "chat_template" not in json.loads(files["tokenizer_config.json"])


@pytest.mark.parametrize("template", [[{"name": "a", "template": "A"}, {"name": "b", "template": "B"}], 7, []])
def test_templates_without_a_default_are_refused(files_of: Callable[..., dict[str, bytes]], template: Any) -> None:
    settings = json.dumps({"chat_template": template})
    with pytest.raises(CheckpointError, match='one must be named "default"'):
        files_of({"tokenizer.json": TOKENIZER, "tokenizer_config.json": settings})


def test_generation_defaults_come_from_the_configuration_where_there_is_no_file(
    files_of: Callable[..., dict[str, bytes]],
) -> None:
    files = files_of({"tokenizer.json": TOKENIZER}, {"bos_token_id": 1, "eos_token_id": [2, 7], "pad_token_id": None})
    assert json.loads(files["generation_config.json"]) == {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": [2, 7],
    }


@pytest.mark.parametrize(
    ("files", "fact", "next_step"),
    [
        ({}, "no tokenizer at all", "copy the tokenizer files"),
        ({"tokenizer.model": b"\x0a"}, "has tokenizer.model", "AutoTokenizer"),
        ({"vocab.json": "{}"}, "has vocab.json", "AutoTokenizer"),
    ],
)
def test_a_missing_tokenizer_json_is_an_error(
    files_of: Callable[..., dict[str, bytes]], files: dict[str, str | bytes], fact: str, next_step: str
) -> None:
    with pytest.raises(CheckpointError) as error:
        files_of(files)
    assert fact in error.value.fact
    assert next_step in error.value.next_step


def test_a_template_that_is_not_text_is_refused(files_of: Callable[..., dict[str, bytes]]) -> None:
    with pytest.raises(CheckpointError, match="must be UTF-8"):
        files_of({"tokenizer.json": TOKENIZER, "chat_template.jinja": b"\xff"})


def test_a_broken_settings_file_is_named(files_of: Callable[..., dict[str, bytes]]) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json is not valid JSON"):
        files_of({"tokenizer.json": TOKENIZER, "tokenizer_config.json": "{"})
