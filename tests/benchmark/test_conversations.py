from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.benchmark.conversations import Questions, conversations_from_file, shipped_conversations
from edgekit.errors import PromptError


def test_the_shipped_ones_ask_and_copy() -> None:
    groups = [each.group for each in shipped_conversations()]
    assert groups.count("chat") == 6
    assert groups.count("copying") == 3
    assert any(len(each.turns) > 1 for each in shipped_conversations())


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"turns": ["a", "b"], "category": "x", "question_id": 3}\n\n{"turns": ["c"]}\n')
    assert conversations_from_file(path) == [Questions("x", ("a", "b")), Questions("mine", ("c",))]


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "it holds none"),
        (b'{"turns": ["a"]}\n{"turns": []}', "line 2: it has no"),
        (b'{"turns": "a"}', "line 1: it has no"),
        (b'{"turns": ["a", 3]}', "line 1: it has no"),
        (b'{"turns": [" "]}', "line 1: it has no"),
        (b"[1]", "line 1: it has no"),
        (b"{", "line 1: "),
        (b'{"turns": ["a"], "category": 3}', "category"),
        (b"\xff", "byte 0"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, fact: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(PromptError) as caught:
        conversations_from_file(path)
    assert fact in caught.value.fact
    assert str(path) in caught.value.fact
