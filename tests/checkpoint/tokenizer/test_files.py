from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from edgekit.checkpoint import open_checkpoint


def files_of(path: Path) -> dict[str, Any]:
    files = open_checkpoint(path).tokenizer_files()
    return {
        name: json.loads(content) if name.endswith(".json") else content.decode() for name, content in files.items()
    }


def test_settings_template_and_defaults(gguf_file: Callable[..., Path]) -> None:
    files = files_of(gguf_file())
    settings = files["tokenizer_config.json"]
    assert settings["bos_token"] == "<|im_start|>"
    assert settings["eos_token"] == settings["pad_token"] == "<|im_end|>"
    assert settings["unk_token"] == "<|endoftext|>"
    assert settings["model_max_length"] == 128
    assert settings["add_bos_token"] is False
    assert sorted(settings["added_tokens_decoder"]) == ["0", "1", "2"]
    assert "chat_template" not in settings
    assert files["chat_template.jinja"].startswith("{% for m in messages %}")
    assert files["special_tokens_map.json"]["eos_token"] == "<|im_end|>"
    assert files["generation_config.json"] == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def test_without_a_template(gguf_file: Callable[..., Path]) -> None:
    files = files_of(gguf_file(metadata={"tokenizer.chat_template": None, "tokenizer.ggml.eos_token_id": 0}))
    assert "chat_template.jinja" not in files
    assert files["generation_config.json"]["eos_token_id"] == 0


def test_a_chat_model_also_stops_at_the_end_of_a_turn(gguf_file: Callable[..., Path]) -> None:
    # The end of text is token 0; the template ends turns with <|im_end|>, token 2.
    files = files_of(gguf_file(metadata={"tokenizer.ggml.eos_token_id": 0}))
    assert files["generation_config.json"]["eos_token_id"] == [0, 2]


def test_an_end_of_turn_that_the_template_does_not_use_is_no_stop(gguf_file: Callable[..., Path]) -> None:
    metadata = {"tokenizer.ggml.eos_token_id": 0, "tokenizer.chat_template": "{{ messages[0]['content'] }}"}
    assert files_of(gguf_file(metadata=metadata))["generation_config.json"]["eos_token_id"] == 0


def test_an_end_of_turn_that_the_file_names_is_a_stop(gguf_file: Callable[..., Path]) -> None:
    metadata = {"tokenizer.ggml.eos_token_id": 0, "tokenizer.chat_template": None, "tokenizer.ggml.eot_token_id": 2}
    assert files_of(gguf_file(metadata=metadata))["generation_config.json"]["eos_token_id"] == [0, 2]


@pytest.mark.parametrize(
    ("flags", "first", "last"),
    [
        ({"tokenizer.ggml.add_bos_token": True}, [1], []),
        ({"tokenizer.ggml.add_bos_token": None}, [], []),
        ({"tokenizer.ggml.add_bos_token": None, "tokenizer.ggml.pre": "llama-bpe"}, [1], []),
        ({"tokenizer.ggml.add_eos_token": True}, [], [2]),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}, [1], [2]),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": None}, [], []),
    ],
)
def test_tokens_added_around_the_text(
    gguf_file: Callable[..., Path], flags: dict[str, Any], first: list[int], last: list[int]
) -> None:
    files = open_checkpoint(gguf_file(metadata=flags)).tokenizer_files()
    made = Tokenizer.from_str(files["tokenizer.json"].decode())
    plain = made.encode("fox", add_special_tokens=False).ids
    assert made.encode("fox").ids == [*first, *plain, *last]
    assert made.encode("fox", "fox").ids == 2 * [*first, *plain, *last]
    assert json.loads(files["tokenizer_config.json"])["add_bos_token"] is bool(first)


@pytest.mark.parametrize("add_bos", [False, True])
def test_transformers_loads_the_files(gguf_file: Callable[..., Path], tmp_path: Path, add_bos: bool) -> None:
    transformers = pytest.importorskip("transformers")
    checkpoint = open_checkpoint(gguf_file(metadata={"tokenizer.ggml.add_bos_token": add_bos}))
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(checkpoint.config))
    for name, content in checkpoint.tokenizer_files().items():
        (folder / name).write_bytes(content)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.from_str((folder / "tokenizer.json").read_text())
    for text in ("the quick fox, 123 naïve", "<|im_start|>user\nhi<|im_end|>"):
        assert theirs(text)["input_ids"] == ours.encode(text).ids
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 2)
    chat = [{"role": "user", "content": "hi"}]
    assert theirs.apply_chat_template(chat, tokenize=False) == "<|im_start|>user\nhi<|im_end|>\n"
    generation = transformers.GenerationConfig.from_pretrained(folder)
    assert (generation.bos_token_id, generation.eos_token_id) == (1, 2)
