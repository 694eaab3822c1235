from __future__ import annotations

from typing import Any

import pytest

from edgekit.chat.conversation import Conversation
from edgekit.chat.dialogue import Dialogue, MessagesDropped
from edgekit.chat.template import ChatTemplate
from edgekit.chat.tokenizer import ChatTokenizer
from edgekit.errors import PromptError, SessionError
from edgekit.runtime.options import Finished, GenerationOptions
from edgekit.runtime.session import Logits, Tokens
from tests.chat.tiny_bundle import CHATML
from tests.runtime.fake_sessions import HashSession


class ParrotSession(HashSession):
    """Says `answers` one after the other, each ended by <|im_end|>, whenever the cache ends with "assistant\\n"."""

    def __init__(self, tokenizer: ChatTokenizer, answers: list[list[int]], capacity: int = 4096) -> None:
        super().__init__(400, capacity)
        self.cue = tokenizer.encode("assistant\n")
        self.answers = [[*answer, tokenizer.eos[0]] for answer in answers]
        self.saying: list[int] = []

    def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
        self.cache.extend(tokens[0].tolist())
        self.calls.append(tokens[0].tolist())
        if self.cache[-len(self.cue) :] == self.cue:
            self.saying = list(self.answers.pop(0))
        logits = np_zeros(self.vocab)
        logits[0, 0, self.saying.pop(0) if self.saying else 0] = 1
        return logits


def np_zeros(vocab: int) -> Logits:
    import numpy as np

    return np.zeros((1, 1, vocab), np.float32)


def dialogue(tokenizer: ChatTokenizer, session: Any, template: str = CHATML, **options: Any) -> Dialogue:
    options = {"max_new_tokens": 50, "stop_tokens": frozenset(tokenizer.eos), "prompt_chunk": 10_000, **options}
    return Dialogue(session, tokenizer, ChatTemplate(template), GenerationOptions(**options))


def ask(chat: Dialogue, question: str, **arguments: Any) -> Finished:
    *_, last = chat.ask(question, **arguments)
    assert isinstance(last, Finished)
    return last


def contents(chat: Dialogue) -> list[str]:
    return [message.content for message in chat.conversation.messages]


def test_questions_and_answers_join_the_conversation(tokenizer: ChatTokenizer) -> None:
    session = ParrotSession(tokenizer, [tokenizer.encode("hello"), tokenizer.encode("world 🙂")])
    chat = dialogue(tokenizer, session)
    assert ask(chat, "one").text == "hello"
    assert ask(chat, "two").text == "world 🙂"
    assert contents(chat) == ["one", "hello", "two", "world 🙂"]
    assert chat.statistics is not None
    assert chat.context == (session.length, 4096)


def test_nothing_is_read_twice(tokenizer: ChatTokenizer) -> None:
    """The second prompt processes the end of the first answer and the new question; the rest is in the cache."""
    session = ParrotSession(tokenizer, [tokenizer.encode("hello"), tokenizer.encode("x")])
    chat = dialogue(tokenizer, session)
    ask(chat, "one")
    session.calls.clear()
    ask(chat, "two")
    assert tokenizer.decode(session.calls[0]) == "\nuser\ntwo\nassistant\n"
    assert session.calls[0][0] == tokenizer.eos[0]


def test_an_answer_in_unusual_tokens_is_not_read_twice_either(tokenizer: ChatTokenizer) -> None:
    """ "hello" said letter by letter: its text alone would be encoded as one token, which is not in the cache."""
    letters = [tokenizer.encode(letter)[0] for letter in "hello"]
    assert letters != tokenizer.encode("hello")
    session = ParrotSession(tokenizer, [letters, letters, tokenizer.encode("x")])
    chat = dialogue(tokenizer, session)
    for question in ("one", "two", "three"):
        session.calls.clear()
        ask(chat, question)
        if question != "one":
            assert tokenizer.decode(session.calls[0]) == f"\nuser\n{question}\nassistant\n"


def test_a_template_that_trims_answers_still_works(tokenizer: ChatTokenizer) -> None:
    template = CHATML.replace("message['content']", "message['content'] | trim")
    session = ParrotSession(tokenizer, [tokenizer.encode("  hello  "), tokenizer.encode("x")])
    chat = dialogue(tokenizer, session, template)
    ask(chat, "one")
    ask(chat, "two")
    text = ChatTemplate(template).render(chat.conversation.as_dicts()[:-1], special_tokens={})
    assert session.cache[: len(tokenizer.encode(text))] == tokenizer.encode(text)


def test_an_answer_cut_by_a_stop_string_is_read_again_as_it_was_shown(tokenizer: ChatTokenizer) -> None:
    session = ParrotSession(tokenizer, [tokenizer.encode("abcSTOPdef"), tokenizer.encode("x")])
    chat = dialogue(tokenizer, session, stop_strings=("STOP",))
    assert ask(chat, "one").text == "abc"
    ask(chat, "two")
    text = ChatTemplate(CHATML).render(chat.conversation.as_dicts()[:-1], special_tokens={})
    assert session.cache[: len(tokenizer.encode(text))] == tokenizer.encode(text)


def test_a_changed_system_prompt_is_read(tokenizer: ChatTokenizer) -> None:
    session = ParrotSession(tokenizer, [tokenizer.encode("a"), tokenizer.encode("b")])
    chat = dialogue(tokenizer, session)
    ask(chat, "one")
    chat.conversation.system = "Be brief."
    ask(chat, "two")
    assert tokenizer.decode(session.cache).startswith("system\nBe brief.\nuser\none")


def test_an_interrupted_answer_is_kept_as_far_as_it_came(tokenizer: ChatTokenizer) -> None:
    session = ParrotSession(tokenizer, [tokenizer.encode("abcdef")])
    chat = dialogue(tokenizer, session)
    asked = iter([False, False, False, True])
    assert ask(chat, "one", cancelled=lambda: next(asked)).reason == "interrupted"
    assert contents(chat) == ["one", "abc"]


def test_a_question_interrupted_before_any_text_is_taken_back(tokenizer: ChatTokenizer) -> None:
    chat = dialogue(tokenizer, ParrotSession(tokenizer, [tokenizer.encode("a")]))
    assert ask(chat, "one", cancelled=lambda: True).text == ""
    assert contents(chat) == []
    assert ask(chat, "two").text == "a"


def test_a_question_that_fails_is_taken_back(tokenizer: ChatTokenizer) -> None:
    class Broken(HashSession):
        def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
            raise SessionError("broken")

    chat = dialogue(tokenizer, Broken())
    with pytest.raises(SessionError):
        ask(chat, "one")
    assert contents(chat) == []
    refusing = dialogue(tokenizer, HashSession(), "{{ raise_exception('no') }}")
    with pytest.raises(PromptError, match="no"):
        ask(refusing, "one")
    assert contents(refusing) == []


def test_the_oldest_messages_are_dropped_with_notice(tokenizer: ChatTokenizer) -> None:
    answers = [tokenizer.encode("a" * 20) for _ in range(12)]
    session = ParrotSession(tokenizer, answers, capacity=200)
    chat = dialogue(tokenizer, session, on_full="truncate-oldest", max_new_tokens=30)
    chat.conversation = Conversation("Sys.")
    dropped = 0
    for i in range(12):
        events = list(chat.ask(f"question {i}"))
        dropped += sum(event.count for event in events if isinstance(event, MessagesDropped))
        assert isinstance(events[-1], Finished)
        assert events[-1].reason == "stop-token"
        assert len(contents(chat)) + dropped == 2 * (i + 1)
    assert dropped >= 10
    assert dropped % 2 == 0
    assert tokenizer.decode(session.cache).startswith("system\nSys.\nuser\nquestion")


def test_a_question_that_can_never_fit_is_refused_and_nothing_is_dropped(tokenizer: ChatTokenizer) -> None:
    session = ParrotSession(tokenizer, [tokenizer.encode("a")], capacity=60)
    chat = dialogue(tokenizer, session, on_full="truncate-oldest")
    ask(chat, "one")
    with pytest.raises(PromptError) as caught:
        ask(chat, "x" * 100)
    assert "60" in caught.value.fact
    assert contents(chat) == ["one", "a"]


@pytest.mark.parametrize("policy", ["stop", "error"])
def test_a_conversation_that_no_longer_fits_is_refused_otherwise(tokenizer: ChatTokenizer, policy: str) -> None:
    session = ParrotSession(tokenizer, [tokenizer.encode("a")], capacity=60)
    chat = dialogue(tokenizer, session, on_full=policy, max_new_tokens=5)
    ask(chat, "one")
    with pytest.raises(PromptError, match="context"):
        ask(chat, "x" * 40)
    assert contents(chat) == ["one", "a"]


def test_an_answer_that_meets_the_end_of_the_context_is_cut(tokenizer: ChatTokenizer) -> None:
    session = ParrotSession(tokenizer, [tokenizer.encode("a" * 100)], capacity=60)
    chat = dialogue(tokenizer, session, on_full="truncate-oldest", max_new_tokens=100)
    end = ask(chat, "one")
    assert end.reason == "context-full"
    assert contents(chat) == ["one", end.text]
