from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.chat.commands import COMMANDS, command_of, run_command
from edgekit.chat.conversation import Conversation, Message
from edgekit.chat.dialogue import Dialogue
from edgekit.chat.tokenizer import ChatTokenizer
from tests.chat.test_dialogue import ParrotSession, ask, dialogue


@pytest.fixture
def chat(tokenizer: ChatTokenizer) -> Dialogue:
    made = dialogue(tokenizer, ParrotSession(tokenizer, [tokenizer.encode("hello")] * 3))
    ask(made, "one")
    return made


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/help", ("help", "")),
        ("/HELP", ("help", "")),
        ("  /system  Be brief.\nAnd kind. ", ("system", "Be brief.\nAnd kind.")),
        ("/nonsense x", ("nonsense", "x")),
        ("hello", None),
        ("/usr/bin is what?", None),
        ("//comment", None),
        ("/", None),
        ("/ help", None),
        ("a /help", None),
        ("/3 of it", None),
    ],
)
def test_what_is_a_command(text: str, command: tuple[str, str] | None) -> None:
    assert command_of(text) == command


def test_help_names_every_command(chat: Dialogue) -> None:
    text = run_command(chat, "help", "").message
    assert all(command.usage in text and command.help in text for command in COMMANDS.values())
    assert {"help", "reset", "stats", "system", "save", "load", "quit"} <= set(COMMANDS)


@pytest.mark.parametrize(("name", "near"), [("hepl", "/help"), ("rest", "/reset"), ("sav", "/save"), ("zzz", "/help")])
def test_an_unknown_command_names_the_nearest(chat: Dialogue, name: str, near: str) -> None:
    outcome = run_command(chat, name, "")
    assert f"/{name}" in outcome.message
    assert near in outcome.message
    assert not outcome.leave


def test_reset_keeps_the_system_prompt(chat: Dialogue) -> None:
    chat.conversation.system = "S"
    assert "system prompt stays" in run_command(chat, "reset", "").message
    assert chat.conversation == Conversation("S")
    assert ask(chat, "again").text == "hello"


def test_stats(chat: Dialogue) -> None:
    text = run_command(chat, "stats", "").message
    assert "tokens/s" in text
    assert "of 4096 tokens, 2 messages" in text


def test_stats_before_the_first_answer(tokenizer: ChatTokenizer) -> None:
    fresh = dialogue(tokenizer, ParrotSession(tokenizer, []))
    assert run_command(fresh, "stats", "").message == "context 0 of 4096 tokens, 0 messages"


def test_system_sets_and_shows(chat: Dialogue) -> None:
    assert "no system prompt" in run_command(chat, "system", "").message
    run_command(chat, "system", "Be brief.")
    assert run_command(chat, "system", "").message == "Be brief."


def test_save_and_load(chat: Dialogue, tmp_path: Path) -> None:
    path = tmp_path / "talk one.json"
    assert "2 messages" in run_command(chat, "save", str(path)).message
    run_command(chat, "reset", "")
    assert "2 messages" in run_command(chat, "load", str(path)).message
    assert chat.conversation.messages == [Message("user", "one"), Message("assistant", "hello")]


@pytest.mark.parametrize("name", ["save", "load"])
def test_a_file_must_be_named(chat: Dialogue, name: str) -> None:
    assert "needs the name of a file" in run_command(chat, name, "").message


def test_what_goes_wrong_is_told_and_changes_nothing(chat: Dialogue, tmp_path: Path) -> None:
    before = list(chat.conversation.messages)
    assert "No such file" in run_command(chat, "load", str(tmp_path / "absent")).message
    (tmp_path / "text").write_text("no json")
    assert "JSON" in run_command(chat, "load", str(tmp_path / "text")).message
    assert "something else" in run_command(chat, "save", str(tmp_path / "text")).message
    assert "No such file" in run_command(chat, "save", str(tmp_path / "nowhere" / "x")).message
    assert "directory" in run_command(chat, "load", str(tmp_path)).message
    assert chat.conversation.messages == before


@pytest.mark.parametrize("name", ["help", "reset", "stats", "quit"])
def test_commands_without_an_argument_refuse_one(chat: Dialogue, name: str) -> None:
    outcome = run_command(chat, name, "x")
    assert "takes nothing" in outcome.message
    assert not outcome.leave
    assert len(chat.conversation.messages) == 2


def test_quit(chat: Dialogue) -> None:
    assert run_command(chat, "quit", "").leave
