"""Decoder sessions without an engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.errors import SessionError
from edgekit.runtime.session import Logits, Tokens


class HashSession:
    """Logits that depend on every token in the cache and on its place, so that a wrong cache cannot go unnoticed."""

    name = "fake"
    description = "fake"
    features = None

    def __init__(self, vocab: int = 50, capacity: int = 64) -> None:
        self.vocab = vocab
        self.capacity = capacity
        self.cache: list[int] = []
        self.calls: list[list[int]] = []

    @property
    def length(self) -> int:
        return len(self.cache)

    def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
        assert tokens.dtype == np.int64
        assert tokens.ndim == 2
        assert tokens.shape[0] == 1
        assert tokens.shape[1] >= 1
        if self.length + tokens.shape[1] > self.capacity:
            raise SessionError("tokens must fit into the context")
        self.calls.append(tokens[0].tolist())
        rows = []
        for token in tokens[0].tolist():
            self.cache.append(token)
            rows.append(self.row())
        return np.stack(rows[-keep:] if keep else rows)[None]

    def row(self) -> np.ndarray:
        return np.random.default_rng(self.cache).standard_normal(self.vocab).astype(np.float32) * 3

    def rollback(self, length: int) -> None:
        assert 0 <= length <= self.length
        del self.cache[length:]

    def reset(self) -> None:
        self.cache.clear()

    def close(self) -> None:
        self.cache.clear()


class ScriptSession(HashSession):
    """Says `script` after a prompt of `prompt` tokens, token by token, whatever the prompt was."""

    def __init__(self, script: Sequence[int], prompt: int = 1, *, vocab: int = 400, capacity: int = 4096) -> None:
        super().__init__(vocab, capacity)
        self.script = list(script)
        self.prompt = prompt

    def row(self) -> np.ndarray:
        logits = np.zeros(self.vocab, np.float32)
        place = len(self.cache) - self.prompt
        if 0 <= place < len(self.script):
            logits[self.script[place]] = 10
        return logits
