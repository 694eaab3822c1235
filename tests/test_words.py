"""Counts in words: one of a thing is not spelled as several."""

from __future__ import annotations

import pytest

from edgekit.words import counted


@pytest.mark.parametrize(
    ("count", "plural", "words"),
    [
        (0, "texts", "0 texts"),
        (1, "texts", "1 text"),
        (2, "texts", "2 texts"),
        (1, "matrices", "1 matrix"),
        (1, "passes", "1 pass"),
        (12345, "tokens", "12,345 tokens"),
        (1, "", "1 "),
    ],
)
def test_one_is_singular(count: int, plural: str, words: str) -> None:
    assert counted(count, plural) == words
