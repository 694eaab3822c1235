from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.chat.conversation import Conversation, Message
from edgekit.errors import PromptError


def talk(exchanges: int, system: str | None = None) -> Conversation:
    conversation = Conversation(system)
    for i in range(exchanges):
        conversation.add("user", f"question {i}")
        conversation.add("assistant", f"answer {i} 日本 🙂")
    return conversation


@pytest.mark.parametrize("system", [None, "", "Be brief."])
def test_what_is_saved_is_loaded(tmp_path: Path, system: str | None) -> None:
    conversation = talk(2, system)
    conversation.save(tmp_path / "talk.json")
    assert Conversation.load(tmp_path / "talk.json") == conversation
    conversation.add("user", "more")
    conversation.add("assistant", "yes")
    conversation.save(tmp_path / "talk.json")
    assert Conversation.load(tmp_path / "talk.json") == conversation
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]


def test_as_dicts_begins_with_the_system_prompt() -> None:
    assert talk(1, "S").as_dicts()[0] == {"role": "system", "content": "S"}
    assert [message["role"] for message in talk(1).as_dicts()] == ["user", "assistant"]


def test_dropping_the_oldest_leaves_the_last_question() -> None:
    conversation = talk(2)
    conversation.add("user", "last")
    assert conversation.drop_oldest_exchange() == 2
    assert conversation.messages[0] == Message("user", "question 1")
    assert conversation.drop_oldest_exchange() == 2
    assert conversation.drop_oldest_exchange() == 0
    assert conversation.messages == [Message("user", "last")]
    assert Conversation().drop_oldest_exchange() == 0


def test_saving_does_not_replace_another_file(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(PromptError) as caught:
        talk(1).save(path)
    assert str(path) in caught.value.fact
    assert path.read_text() == "years of work"


GOOD = {"edgekit_conversation": 1, "system": None, "messages": []}
USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("document", "fact"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ("[]", "edgekit_conversation"),
        ("{}", "edgekit_conversation"),
        ({**GOOD, "edgekit_conversation": 2}, "schema 2"),
        ({**GOOD, "system": 5}, "system"),
        ({**GOOD, "messages": {}}, "messages"),
        ({**GOOD, "messages": [USER]}, "no answer"),
        ({**GOOD, "messages": [USER, "x"]}, "message 1"),
        ({**GOOD, "messages": [USER, {"role": "assistant"}]}, "message 1"),
        ({**GOOD, "messages": [USER, {"role": "assistant", "content": 5}]}, "message 1"),
        ({**GOOD, "messages": [ASSISTANT, USER]}, "message 0"),
        ({**GOOD, "messages": [{"role": "system", "content": "x"}, ASSISTANT]}, "'system'"),
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path: Path, document: object, fact: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(PromptError) as caught:
        Conversation.load(path)
    assert fact in caught.value.fact
    assert str(path) in caught.value.fact
