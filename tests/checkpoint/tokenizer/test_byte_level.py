from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

from edgekit.checkpoint import open_checkpoint
from edgekit.errors import CheckpointError

# From the tokenizer.json of Qwen/Qwen2-0.5B and of meta-llama/Meta-Llama-3-8B.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)

PROMPTS = [
    "",
    "the quick brown fox",
    "  leading and trailing  ",
    "1234567 and 3.14",
    "naïve cafés — 你好，世界 🎉👩‍👩‍👧",
    "tabs\t\tand\n\n\nnew\r\nlines",
    "don't I'LL we've IT'S",
    "<|im_start|>user\nhi<|im_end|>\n",
    "half <|im_st art|>",
    "e\u0301 decomposed, \u00a0 no-break, \u2003 em",
    "\x00\x7f control \ufffd",
]


def split_by(pattern: str) -> Any:
    steps = [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return pre_tokenizers.Sequence(steps)


def smollm() -> Any:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


ORIGINALS: dict[str, Callable[[], Any]] = {
    "smollm": smollm,
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "qwen2": lambda: split_by(QWEN2),
    "deepseek-r1-qwen": lambda: split_by(QWEN2),
    "llama-bpe": lambda: split_by(LLAMA3),
    "llama3": lambda: split_by(LLAMA3),
    "llama-v3": lambda: split_by(LLAMA3),
}


@pytest.mark.parametrize("pre", ORIGINALS)
def test_it_encodes_like_the_tokenizer_that_it_was_made_from(
    gguf_file: Callable[..., Path],
    byte_level: Callable[..., Tokenizer],
    tokenizer_metadata: Callable[..., dict[str, Any]],
    pre: str,
) -> None:
    original = byte_level(ORIGINALS[pre]())
    if "qwen" in pre:
        original.normalizer = normalizers.NFC()
    original.decoder = decoders.ByteLevel()
    files = open_checkpoint(gguf_file(metadata=tokenizer_metadata(original, pre))).tokenizer_files()
    made = Tokenizer.from_str(files["tokenizer.json"].decode())
    assert made.get_vocab() == original.get_vocab()
    for prompt in PROMPTS:
        expected = original.encode(prompt).ids
        assert made.encode(prompt).ids == expected, prompt
        assert made.decode(expected, skip_special_tokens=False) == original.decode(expected, skip_special_tokens=False)
        assert made.decode(expected) == original.decode(expected)


def test_the_families_split_numbers_differently(
    gguf_file: Callable[..., Path],
    byte_level: Callable[..., Tokenizer],
    tokenizer_metadata: Callable[..., dict[str, Any]],
) -> None:
    """Guards the test above: were the splittings alike, it could not tell a wrong one."""
    original = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    counts = {}
    for pre in ("smollm", "gpt-2", "llama3"):
        path = gguf_file(f"{pre}.gguf", metadata=tokenizer_metadata(original, pre))
        made = Tokenizer.from_str(open_checkpoint(path).tokenizer_files()["tokenizer.json"].decode())
        assert made.pre_tokenizer is not None
        counts[pre] = len(made.pre_tokenizer.pre_tokenize_str("12345678"))
    assert counts == {"smollm": 8, "gpt-2": 1, "llama3": 3}


@pytest.mark.parametrize("pre", ["tekken", "default", None])
def test_an_unknown_pre_tokenizer_lists_the_known_ones(
    gguf_file: Callable[..., Path],
    byte_level: Callable[..., Tokenizer],
    tokenizer_metadata: Callable[..., dict[str, Any]],
    pre: str | None,
) -> None:
    checkpoint = open_checkpoint(
        gguf_file(metadata=tokenizer_metadata(byte_level(), pre) | {"tokenizer.ggml.pre": pre})
    )
    with pytest.raises(CheckpointError) as error:
        checkpoint.tokenizer_files()
    assert repr(pre) in error.value.fact
    assert "deepseek-r1-qwen, gpt-2, llama-bpe, llama-v3, llama3, qwen2, smollm" in error.value.fact


def test_user_defined_tokens_stay_whole_but_are_not_special(
    gguf_file: Callable[..., Path],
    byte_level: Callable[..., Tokenizer],
    tokenizer_metadata: Callable[..., dict[str, Any]],
) -> None:
    metadata = tokenizer_metadata(byte_level(), "qwen2")
    metadata["tokenizer.ggml.tokens"][299] = "<think>"
    metadata["tokenizer.ggml.token_type"][299] = 4
    metadata["tokenizer.ggml.merges"] = metadata["tokenizer.ggml.merges"][:-1]
    files = open_checkpoint(gguf_file(metadata=metadata)).tokenizer_files()
    made = Tokenizer.from_str(files["tokenizer.json"].decode())
    ids = made.encode("a<think>b<|im_end|>").ids
    assert 299 in ids
    assert made.decode(ids) == "a<think>b"
    assert json.loads(files["tokenizer_config.json"])["added_tokens_decoder"]["299"]["special"] is False


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"tokenizer.ggml.merges": None}, "needs tokenizer.ggml.merges"),
        ({"tokenizer.ggml.merges": ["nospace"]}, "'nospace' does not consist of two parts"),
        ({"tokenizer.ggml.merges": ["zzz qqq"]}, "does not fit together"),
        ({"tokenizer.ggml.merges": [7, 8]}, "is not a list of strings"),
        ({"tokenizer.ggml.tokens": None}, "has no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.model": None}, "has no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.model": "bert"}, "'bert'; known are gpt2, llama"),
        ({"tokenizer.ggml.token_type": [1, 2, 3]}, "one number for each of its 300 tokens"),
        ({"tokenizer.ggml.tokens": ["a", "b", "c", "a"], "tokenizer.ggml.token_type": None}, "'a' occurs twice"),
        (
            {"tokenizer.ggml.tokens": [f"t{i}" for i in range(301)], "tokenizer.ggml.token_type": None},
            "301 tokens, the embedding only 300 rows",
        ),
        ({"tokenizer.chat_template": 7}, "tokenizer.chat_template is not a string"),
    ],
)
def test_a_tokenizer_that_does_not_fit_together_is_refused(
    gguf_file: Callable[..., Path], change: dict[str, Any], fact: str
) -> None:
    checkpoint = open_checkpoint(gguf_file(metadata=change))
    with pytest.raises(CheckpointError) as error:
        checkpoint.tokenizer_files()
    assert fact in error.value.fact
