"""Text to train on that needs no data: a chat model talks with itself, many conversations side by side.

After what its template writes before a user's words a chat model writes such words, as in Magpie (arXiv 2406.08464),
and after those its answer. All conversations of a batch lie in one cache, so each is at its own place in its own turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgekit.errors import PromptError
from edgekit.runtime.session import DecoderSession

#: Marks in a rendered conversation where the words go; no template holds them, and no tokenizer joins across them.
_WORDS = ("<<first words>>", "<<answer>>", "<<more words>>")
#: A user who has not finished by then is cut off; an answer as well.
USER_TOKENS, ANSWER_TOKENS = 96, 320
#: The user is creative; of the answers half are greedy, as most chats on a device are, and half are drawn.
USER_TEMPERATURE, ANSWER_TEMPERATURE = 1.0, 0.7
TOP_K, TOP_P = 128, 0.95

Render = Callable[[list[dict[str, str]], bool], str]


@dataclass(frozen=True)
class Frame:
    """What the template writes around words, as tokens: before the user's first, before an answer, and after one."""

    opening: tuple[int, ...]
    answer: tuple[int, ...]
    again: tuple[int, ...]


def frame_of(render: Render, encode: Callable[[str], list[int]]) -> Frame:
    """The frame of a template.

    Args:
        render: messages and whether to begin an answer -> text.

    Raises:
        PromptError: the template does not keep the words in their order.
    """
    first, reply, more = _WORDS
    talk = [{"role": "user", "content": first}, {"role": "assistant", "content": reply}]
    asked, whole = render(talk[:1], True), render([*talk, {"role": "user", "content": more}], True)
    if not (asked.count(first) == 1 and whole.count(reply) == 1 and whole.count(more) == 1):
        raise PromptError(
            "a chat template writes each message once", "this one does not", "give text to train on with --text"
        )
    opening, answer = asked.split(first)
    again = whole.split(reply)[1].split(more)[0]
    return Frame(tuple(encode(opening)), tuple(encode(answer)), tuple(encode(again)))


@dataclass
class _Row:
    """One conversation: tokens that must come next, whose turn it is, and how far it is."""

    temperature: float
    forced: deque[int] = field(default_factory=deque)
    answering: bool = False
    written: int = 0

    def next(self, chosen: int, frame: Frame, eos: Collection[int]) -> int:
        """The token to append, given what the model would say."""
        if self.forced:
            return self.forced.popleft()
        self.written += 1
        if chosen not in eos and self.written <= (ANSWER_TOKENS if self.answering else USER_TOKENS):
            return chosen
        # What ends a turn is part of the frame.
        self.forced.extend(frame.again if self.answering else frame.answer)
        self.answering, self.written = not self.answering, 0
        return self.forced.popleft()


def conversations(
    session: DecoderSession,
    frame: Frame,
    eos: Collection[int],
    *,
    rows: int,
    length: int,
    generator: np.random.Generator,
    questions: Sequence[Sequence[int]] = (),
) -> npt.NDArray[np.int64]:
    """Conversations of the model with itself, int64 [rows, length].

    Args:
        session: is reset; its capacity is at least `length`.
        questions: tokens of first words for the first rows; the others find their own.
    """
    session.reset()
    tables = [_Row(0.0 if index % 2 else ANSWER_TEMPERATURE) for index in range(rows)]
    for row, words in zip(tables, questions, strict=False):
        row.forced.extend([*words, *frame.answer])
        row.answering = True
    ids = np.tile(np.array(frame.opening, np.int64), (rows, 1))
    found = [ids]
    while sum(part.shape[1] for part in found) < length:
        logits = session.forward(ids)[:, -1]
        temperatures = np.array([row.temperature if row.answering else USER_TEMPERATURE for row in tables])
        chosen = drawn(logits, temperatures, generator)
        following = [row.next(int(token), frame, eos) for row, token in zip(tables, chosen, strict=True)]
        ids = np.array(following, np.int64)[:, None]
        found.append(ids)
    return np.concatenate(found, 1)[:, :length]


def drawn(
    logits: npt.NDArray[np.float32], temperatures: npt.NDArray[np.float64], generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """A token per row, int64 [B], of the likeliest 128 within 95 % of the mass; the likeliest at temperature 0."""
    count = min(TOP_K, logits.shape[1])
    best = np.argpartition(-logits, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(logits, best, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    best, values = np.take_along_axis(best, order, 1), np.take_along_axis(values, order, 1).astype(np.float64)
    warm = np.maximum(temperatures, 1e-6)[:, None]
    mass = np.exp((values - values[:, :1]) / warm)
    mass /= mass.sum(1, keepdims=True)
    mass[mass.cumsum(1) - mass >= TOP_P] = 0.0
    point = generator.random((len(mass), 1)) * mass.sum(1, keepdims=True)
    place = (mass.cumsum(1) <= point).sum(1)
    place = np.minimum(place, (mass > 0).sum(1) - 1)
    chosen: npt.NDArray[np.int64] = best[np.arange(len(best)), place].astype(np.int64)
    return chosen
