from __future__ import annotations

import os
import signal
from collections.abc import Iterable

import pytest

from edgekit.chat.dialogue import Dialogue
from edgekit.chat.interrupt import Interrupt
from edgekit.chat.reading import NothingTyped
from edgekit.chat.terminal import chat
from edgekit.chat.tokenizer import ChatTokenizer
from edgekit.errors import SessionError
from edgekit.runtime.session import Logits, Tokens
from tests.chat.test_dialogue import ParrotSession, dialogue


class Script:
    """A reader that gives turns, or raises those that are exceptions."""

    def __init__(self, turns: Iterable[str | Exception]) -> None:
        self.turns = iter(turns)

    def read(self) -> str | None:
        turn = next(self.turns, None)
        if isinstance(turn, Exception):
            raise turn
        return turn


class Sheet:
    def __init__(self, answers: list[str]) -> None:
        self.answers = answers
        answers.append("")
        self.closed = False

    def write(self, text: str) -> None:
        assert not self.closed
        self.answers[-1] += text

    def close(self) -> None:
        self.closed = True


def run(talk: Dialogue, *turns: str | Exception) -> tuple[list[str], list[str]]:
    answers: list[str] = []
    sheets: list[Sheet] = []
    notices: list[str] = []

    def sheet() -> Sheet:
        sheets.append(Sheet(answers))
        return sheets[-1]

    chat(talk, Script(turns), sheet, notices.append)
    assert all(sheet.closed for sheet in sheets)
    return answers, notices


@pytest.fixture
def talk(tokenizer: ChatTokenizer) -> Dialogue:
    return dialogue(tokenizer, ParrotSession(tokenizer, [tokenizer.encode(text) for text in ("hello", "world")]))


def test_questions_are_answered_until_there_are_no_more(talk: Dialogue) -> None:
    assert run(talk, "one", "two") == (["hello", "world"], [])


def test_commands_are_not_sent_to_the_model(talk: Dialogue) -> None:
    answers, notices = run(talk, "one", "/stats", "/sttas", "/quit", "two")
    assert answers == ["hello"]
    assert "tokens/s" in notices[0]
    assert "/stats" in notices[1]
    assert len(notices) == 2


def test_ctrl_c_with_nothing_typed_says_how_to_leave(talk: Dialogue) -> None:
    answers, notices = run(talk, NothingTyped(), "one")
    assert answers == ["hello"]
    assert "Ctrl-D" in notices[0]


def test_a_prompt_that_cannot_be_answered_ends_nothing(tokenizer: ChatTokenizer) -> None:
    session = ParrotSession(tokenizer, [tokenizer.encode("hello")], capacity=60)
    answers, notices = run(dialogue(tokenizer, session, on_full="truncate-oldest"), "x" * 100, "one")
    assert answers == ["hello"]
    assert "60" in notices[0]


@pytest.mark.parametrize(
    ("options", "notice"), [({"max_new_tokens": 2}, "--max-new-tokens"), ({"capacity": 30}, "the context is full")]
)
def test_an_answer_that_was_cut_says_so(tokenizer: ChatTokenizer, options: dict[str, int], notice: str) -> None:
    session = ParrotSession(tokenizer, [tokenizer.encode("abcdefghijklmnop")], options.pop("capacity", 4096))
    _, notices = run(dialogue(tokenizer, session, **options), "one")
    assert len(notices) == 1
    assert notice in notices[0]


def test_dropped_messages_are_told(tokenizer: ChatTokenizer) -> None:
    session = ParrotSession(tokenizer, [tokenizer.encode("a" * 20) for _ in range(6)], capacity=150)
    talk = dialogue(tokenizer, session, on_full="truncate-oldest", max_new_tokens=30)
    answers, notices = run(talk, *(f"question {i}" for i in range(6)))
    assert answers == ["a" * 20] * 6
    assert notices
    assert all("oldest messages were dropped" in notice for notice in notices)


class PressingSession(ParrotSession):
    """Ctrl-C is pressed during the steps named."""

    def __init__(self, tokenizer: ChatTokenizer, answers: list[list[int]], steps: set[int]) -> None:
        super().__init__(tokenizer, answers)
        self.steps = steps

    def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
        logits = super().forward(tokens, keep)
        if len(self.calls) in self.steps:
            os.kill(os.getpid(), signal.SIGINT)
        return logits


def test_ctrl_c_stops_the_answer_and_not_the_chat(tokenizer: ChatTokenizer) -> None:
    session = PressingSession(tokenizer, [tokenizer.encode("abcdef"), tokenizer.encode("world")], {3})
    answers, notices = run(dialogue(tokenizer, session), "one", "two")
    assert answers == ["abc", "world"]
    assert notices == ["stopped"]


def test_ctrl_c_before_the_first_text_takes_the_question_back(tokenizer: ChatTokenizer) -> None:
    session = PressingSession(tokenizer, [tokenizer.encode("abc"), tokenizer.encode("world")], {1})
    talk = dialogue(tokenizer, session, prompt_chunk=5)
    answers, notices = run(talk, "one", "/reset")
    assert answers == [""]
    assert "taken back" in notices[0]
    assert talk.conversation.messages == []


def test_a_second_ctrl_c_leaves_at_once(tokenizer: ChatTokenizer) -> None:
    class Stuck(PressingSession):
        def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("the second must not be waited out")

    with pytest.raises(KeyboardInterrupt):
        run(dialogue(tokenizer, Stuck(tokenizer, [], set())), "one")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_broken_engine_ends_the_chat(tokenizer: ChatTokenizer) -> None:
    class Broken(ParrotSession):
        def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
            raise SessionError("broken")

    with pytest.raises(SessionError):
        run(dialogue(tokenizer, Broken(tokenizer, [])), "one")


def test_interrupt_restores_the_handler_and_forgets() -> None:
    interrupt = Interrupt()
    for _ in range(2):
        with interrupt:
            assert not interrupt.requested()
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.requested()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupt_in_another_thread_changes_nothing() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def enter() -> bool:
        with Interrupt() as interrupt:
            return interrupt.requested()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter).result() is False
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
