"""The vocabulary in a GGUF file, checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.checkpoint.gguf_config import special_token_id
from edgekit.checkpoint.gguf_header import GgufHeader, broken
from edgekit.errors import CheckpointError

# tokenizer.ggml.token_type (llama.cpp's llama_token_type).
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, and what the file says about them.

    Attributes:
        model: tokenizer.ggml.model, "gpt2" or "llama".
        pre: tokenizer.ggml.pre, the name of the pre-tokenizer, or None.
        tokens: the text of each token, as the tokenizer model spells it.
        types: one of the constants above for each token.
        scores: score of each piece, or None.
        merges: BPE merges "left right" in order of rank, or None.
        special: "bos", "eos", "unknown", "padding" -> token id, where the file says so.
        flags: "add_bos_token", "add_eos_token", "add_space_prefix" -> bool, where the file says so.
    """

    model: str
    pre: str | None
    tokens: list[str]
    types: list[int]
    scores: npt.NDArray[np.float32] | None
    merges: list[str] | None
    special: dict[str, int]
    flags: dict[str, bool]

    def ids_of_type(self, *types: int) -> list[int]:
        return [i for i, kind in enumerate(self.types) if kind in types]

    def special_token(self, kind: str) -> str | None:
        return self.tokens[self.special[kind]] if kind in self.special else None


def _column(header: GgufHeader, key: str, count: int, path: Path) -> npt.NDArray[Any] | None:
    """A numeric array with one number for each token, or None where the file has none."""
    value = header.metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or len(value) != count:
        raise broken(path, f"{key} does not hold one number for each of its {count:,} tokens")
    return value


def _strings(header: GgufHeader, key: str, path: Path) -> list[str] | None:
    value = header.metadata.get(key)
    if value is not None and not isinstance(value, list):
        raise broken(path, f"{key} is not a list of strings")
    return value


def read_vocabulary(header: GgufHeader, path: Path) -> Vocabulary:
    """Raises CheckpointError where the file has no tokenizer, or one that contradicts itself or the embedding."""
    tokens = _strings(header, "tokenizer.ggml.tokens", path)
    model = header.metadata.get("tokenizer.ggml.model")
    if not tokens or not isinstance(model, str):
        raise CheckpointError(
            "a GGUF file must hold its tokenizer",
            f"{path} has no tokenizer.ggml.tokens and tokenizer.ggml.model",
            "take a file that llama.cpp can run by itself",
        )
    rows = header.tensors["token_embd.weight"].shape[0]
    if len(tokens) > rows:
        raise broken(path, f"the vocabulary has {len(tokens):,} tokens, the embedding only {rows:,} rows")
    if len(set(tokens)) != len(tokens):
        first = next(token for token, count in Counter(tokens).items() if count > 1)
        raise broken(path, f"the token {first!r} occurs twice in the vocabulary")
    types = _column(header, "tokenizer.ggml.token_type", len(tokens), path)
    kinds = ("bos", "eos", "unknown", "padding", "eot", "eom")
    ids = {kind: special_token_id(header, kind, path) for kind in kinds}
    flags = {
        name: bool(header.metadata[f"tokenizer.ggml.{name}"])
        for name in ("add_bos_token", "add_eos_token", "add_space_prefix")
        if f"tokenizer.ggml.{name}" in header.metadata
    }
    pre = header.metadata.get("tokenizer.ggml.pre")
    return Vocabulary(
        model=model,
        pre=pre if isinstance(pre, str) else None,
        tokens=tokens,
        types=[NORMAL] * len(tokens) if types is None else [int(kind) for kind in types],
        scores=_column(header, "tokenizer.ggml.scores", len(tokens), path),
        merges=_strings(header, "tokenizer.ggml.merges", path),
        special={kind: i for kind, i in ids.items() if i is not None},
        flags=flags,
    )
