"""SentencePiece tokenizers against a plain implementation of SentencePiece's own algorithm."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from edgekit.checkpoint import open_checkpoint
from edgekit.errors import CheckpointError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
PIECES = ["▁", "a", "b", "c", "d", "e", "l", "o", "w", "r", "h", "é"]
LONGER = ["lo", "low", "▁lo", "▁low", "er", "lower", "▁lower", "ow", "he", "hel", "lo▁", "▁▁", "aa", "aaaa", "ab", "ba"]
USER = ["<tag>", "  ", "   "]


def vocabulary(user_defined: bool) -> tuple[list[str], list[int], list[float]]:
    """Tokens, types and scores: specials, bytes, characters, then pieces with scores in another order than the ids."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256
    scores = [0.0] * len(tokens)
    tokens += PIECES
    types += [NORMAL] * len(PIECES)
    scores += [-1e6] * len(PIECES)
    longer = [piece for piece in LONGER if not (user_defined and piece == "▁▁")]
    tokens += longer
    types += [NORMAL] * len(longer)
    scores += np.random.default_rng(5).permutation(len(longer)).astype(float).tolist()
    if user_defined:
        tokens += USER
        types += [USER_DEFINED] * len(USER)
        scores += [-1000.0] * len(USER)
    return tokens, types, scores


def metadata(user_defined: bool = False, prefix: bool = True) -> dict[str, Any]:
    tokens, types, scores = vocabulary(user_defined)
    found: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.add_bos_token": None,
        "tokenizer.ggml.add_space_prefix": prefix,
    }
    return found


def reference(text: str, prefix: bool) -> list[int]:
    """SentencePiece's BPE on text without special tokens: join the neighbours of the best piece, leftmost first."""
    tokens, _, scores = vocabulary(False)
    ids = {token: i for i, token in enumerate(tokens)}
    symbols = list(("▁" if prefix and text else "") + text.replace(" ", "▁"))
    while True:
        joined = [(scores[ids[a + b]], -i) for i, (a, b) in enumerate(itertools.pairwise(symbols)) if a + b in ids]
        if not joined:
            break
        i = -max(joined)[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    out: list[int] = []
    for symbol in symbols:
        out += [ids[symbol]] if symbol in ids else [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return out


@pytest.fixture
def tokenizer_of(gguf_file: Callable[..., Path]) -> Callable[..., Tokenizer]:
    def make(**what: Any) -> Tokenizer:
        files = open_checkpoint(gguf_file(metadata=metadata(**what))).tokenizer_files()
        return Tokenizer.from_str(files["tokenizer.json"].decode())

    return make


@pytest.mark.parametrize("prefix", [True, False])
def test_it_encodes_as_sentencepiece_does(tokenizer_of: Callable[..., Tokenizer], prefix: bool) -> None:
    made = tokenizer_of(prefix=prefix)
    rng = np.random.default_rng(3)
    texts = ["low lower", "hello wold", "  two  spaces ", "é🎉 你好", "a\tb\nc", "aaaaaaa", "ababab", "X"]
    texts += ["".join(rng.choice(list("  abcdelowrh"), 30)) for _ in range(200)]
    for text in texts:
        ids = made.encode(text, add_special_tokens=False).ids
        assert ids == reference(text, prefix), text
        assert made.decode(ids) == text


def test_the_beginning_is_added_where_the_file_does_not_say(tokenizer_of: Callable[..., Tokenizer]) -> None:
    made = tokenizer_of()
    assert made.encode("low").ids == [1, *made.encode("low", add_special_tokens=False).ids]


def test_user_defined_pieces_are_taken_before_any_merge(tokenizer_of: Callable[..., Tokenizer]) -> None:
    made = tokenizer_of(user_defined=True, prefix=False)

    def pieces(text: str) -> list[str]:
        return made.encode(text, add_special_tokens=False).tokens

    assert pieces("a<tag>b") == ["a", "<tag>", "b"]
    # The longest run of spaces first, and the rest after it.
    assert pieces("a  b") == ["a", "▁▁", "b"]
    assert pieces("a     b") == ["a", "▁▁▁", "▁▁", "b"]
    assert pieces("a low") == ["a", "▁low"]
    for text in ("a  b", "  a   b ", "<tag>  x"):
        assert made.decode(made.encode(text, add_special_tokens=False).ids) == text


def test_special_tokens_in_the_text_are_one_token(tokenizer_of: Callable[..., Tokenizer]) -> None:
    made = tokenizer_of(prefix=False)
    assert made.encode("</s>low", add_special_tokens=False).tokens == ["</s>", "low"]


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"tokenizer.ggml.scores": None}, "needs tokenizer.ggml.scores"),
        ({"tokenizer.ggml.scores": [1.0]}, "one number for each"),
        ({"tokenizer.ggml.token_type": None}, "needs 256 byte pieces"),
        ({"tokenizer.ggml.tokens": [*vocabulary(False)[0][:-1], "a" * 513]}, "more than 512 characters"),
    ],
)
def test_missing_parts_are_named(gguf_file: Callable[..., Path], change: dict[str, Any], fact: str) -> None:
    checkpoint = open_checkpoint(gguf_file(metadata=metadata() | change))
    with pytest.raises(CheckpointError) as error:
        checkpoint.tokenizer_files()
    assert fact in error.value.fact


def test_settings(gguf_file: Callable[..., Path]) -> None:
    files = open_checkpoint(gguf_file(metadata=metadata())).tokenizer_files()
    settings = json.loads(files["tokenizer_config.json"])
    assert settings["add_bos_token"] is True
    assert settings["unk_token"] == "<unk>"
