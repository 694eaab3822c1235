"""Shipped prompts and prompts from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import PromptError
from edgekit.parity.prompts import prompts_from_file, shipped_prompts


def test_shipped_prompts_are_of_different_kinds() -> None:
    prompts = shipped_prompts()
    assert len(prompts) == 8
    text = "\n".join(prompts)
    assert "def fibonacci" in text
    assert "3.14159" in text
    assert "こんにちは" in text
    assert all(prompt == prompt.strip("\n") for prompt in prompts)
    assert any("\n" in prompt for prompt in prompts)


def test_prompts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\n\ntwo lines\n%%\n  \n%%\n100 %% sure\n", encoding="utf-8")
    assert prompts_from_file(path) == ["one\n\ntwo lines", "100 %% sure"]


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "holds none"), (b"%%\n\n%%\n", "holds none"), (b"a\xff", "byte 1")]
)
def test_refusals(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(PromptError, match=words):
        prompts_from_file(path)
