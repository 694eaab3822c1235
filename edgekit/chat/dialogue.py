"""One chat: a conversation, the model that answers, and the cache that remembers what it has read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from edgekit.chat.conversation import Conversation
from edgekit.chat.template import ChatTemplate
from edgekit.chat.tokenizer import ChatTokenizer
from edgekit.errors import PromptError
from edgekit.runtime.drafting.drafting import Drafting
from edgekit.runtime.drafting.statistics import DraftStatistics
from edgekit.runtime.generate import check_length, generate
from edgekit.runtime.options import Event, Finished, GenerationOptions, OnFull
from edgekit.runtime.prefix import PrefixCache
from edgekit.runtime.session import DecoderSession
from edgekit.runtime.statistics import Statistics


@dataclass(frozen=True)
class MessagesDropped:
    """The oldest `count` messages were given up, because the conversation no longer fitted into the context."""

    count: int


class Dialogue:
    """Asks the model and keeps the conversation.

    Attributes:
        conversation: what has been said; may be replaced between two questions.
        statistics: of the last answer, or None.
    """

    def __init__(
        self,
        session: DecoderSession,
        tokenizer: ChatTokenizer,
        template: ChatTemplate,
        options: GenerationOptions,
        conversation: Conversation | None = None,
        drafting: Drafting | None = None,
    ) -> None:
        """`options.on_full` "truncate-oldest" drops whole messages here; an answer that meets the end is cut.

        What `drafting` learns in one answer serves the next.
        """
        self._cache = PrefixCache(session)
        self._tokenizer = tokenizer
        self._template = template
        self._options = options
        self._read = _Read("", [])
        self._drafting = drafting
        self.conversation = conversation or Conversation()
        self.statistics: Statistics | None = None

    @property
    def context(self) -> tuple[int, int]:
        """Tokens in the cache, and how many it can hold."""
        return self._cache.session.length, self._cache.session.capacity

    @property
    def drafted(self) -> DraftStatistics | None:
        """What drafting did in all answers; None without a drafter."""
        return None if self._drafting is None else self._drafting.total

    def ask(self, question: str, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Event | MessagesDropped]:
        """Answer `question`.

        The answer, as far as it came, joins the conversation; a question that fails or is interrupted before the
        first text leaves it as it was.

        Yields:
            MessagesDropped, then what `generate` yields.

        Raises:
            PromptError: the template refuses the conversation, or it does not fit into the context.
            SessionError, DoesNotFit: see DecoderSession.forward.
        """
        before = list(self.conversation.messages)
        self.conversation.add("user", question)
        answered = False
        try:
            text, prompt, dropped = self._prompt()
            if dropped:
                yield MessagesDropped(dropped)
            on_full: OnFull = "error" if self._options.on_full == "error" else "stop"
            options = replace(self._options, on_full=on_full)
            for event in generate(
                self._cache, self._tokenizer, prompt, options, drafting=self._drafting, cancelled=cancelled
            ):
                if isinstance(event, Finished):
                    self.statistics = event.statistics
                    answered = event.reason != "interrupted" or event.text != ""
                    if answered:
                        self.conversation.add("assistant", event.text)
                        self._read = self._read_so_far(text, prompt, event)
                yield event
        finally:
            if not answered:
                self.conversation.messages[:] = before

    def _prompt(self) -> tuple[str, list[int], int]:
        """The conversation as text and tokens, and how many messages had to be dropped for it to fit."""
        text, prompt = self._encoded()
        capacity = self._cache.session.capacity
        if self._options.on_full != "truncate-oldest":
            check_length(len(prompt), capacity, self._options)
            return text, prompt, 0
        room = min(self._options.max_new_tokens or capacity, capacity // 4)
        dropped = 0
        if len(prompt) + room > capacity:
            # Down to half at once: each drop changes the beginning, and so all the rest is read again.
            while len(prompt) > capacity // 2 and (count := self.conversation.drop_oldest_exchange()):
                dropped += count
                text, prompt = self._encoded()
        if len(prompt) > capacity:
            raise PromptError(
                "a question must fit into the context",
                f"it takes {len(prompt)} tokens with the system prompt, the context holds {capacity}",
                "shorten it, or allow a longer --max-context",
            )
        return text, prompt, dropped

    def _encoded(self) -> tuple[str, list[int]]:
        text = self._template.render(self.conversation.as_dicts(), special_tokens=self._tokenizer.special_tokens)
        rest = text.removeprefix(self._read.text)
        # The tokens that were generated, rather than those that their text would be cut into: both mean the same to
        # the reader, but only the former are in the cache.
        if self._read.text and len(rest) < len(text) and self._tokenizer.splits_before(rest):
            return text, self._read.tokens + self._tokenizer.encode(rest)
        return text, self._tokenizer.encode(text)

    def _read_so_far(self, text: str, prompt: list[int], event: Finished) -> _Read:
        tokens = [token for token in event.tokens if token not in self._options.stop_tokens]
        if self._tokenizer.decode(tokens) != event.text:  # cut by a stop string, or with a special token inside
            return _Read("", [])
        return _Read(text + event.text, prompt + tokens)


@dataclass(frozen=True)
class _Read:
    """A beginning of the conversation as the model has seen it: the text and its very tokens."""

    text: str
    tokens: list[int]
