"""Multiple-choice questions: a file of them, and as tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgekit.chat.tokenizer import ChatTokenizer
from edgekit.errors import EdgekitError
from edgekit.runtime.prefix import common_prefix

PROMPT = "Question: {question}\nAnswer:"
FORMAT = '{"question": "...", "choices": ["...", "..."], "answer": 0}'


@dataclass(frozen=True)
class Question:
    """A question with its choices; `answer` is the index of the right one."""

    question: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class ChoiceTask:
    """Questions of a file, with the SHA-256 of its content."""

    name: str
    sha256: str
    questions: tuple[Question, ...] = field(repr=False)


@dataclass(frozen=True)
class EncodedQuestion:
    """A question as tokens.

    Attributes:
        context: what every choice is read after.
        rests: of each choice the tokens after `context`; the last tokens of the prompt may be among them.
        scored: of each choice how many of its last tokens are scored.
    """

    context: tuple[int, ...]
    rests: tuple[tuple[int, ...], ...]
    scored: tuple[int, ...]


def read_questions(path: Path) -> ChoiceTask:
    """The questions of a file of JSON lines. "answer" is an index from 0, or the choice itself.

    Raises:
        EdgekitError: a line is something else, or there is none.
    """
    content = path.read_bytes()
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise _malformed(str(path), f"byte {error.start} is no UTF-8") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_question(json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise _malformed(f"{path}, line {number}", str(error)) from error
    if not found:
        raise _malformed(str(path), "it holds none")
    return ChoiceTask(path.name, sha256(content).hexdigest(), tuple(found))


def _question(row: Any) -> Question:
    """Raises ValueError that says what is wrong."""
    if not isinstance(row, dict):
        raise ValueError("it is no object")
    question, choices, answer = (row.get(name) for name in ("question", "choices", "answer"))
    if not isinstance(question, str) or not question.strip():
        raise ValueError('its "question" is no text')
    if not isinstance(choices, list) or len(choices) < 2:
        raise ValueError('its "choices" are no list of at least two')
    if not all(isinstance(each, str) and each.strip() for each in choices):
        raise ValueError("a choice is no text")
    if len(set(choices)) != len(choices):
        raise ValueError("two of its choices are the same")
    if isinstance(answer, str):
        if answer not in choices:
            raise ValueError(f'its "answer" {answer!r} is none of its choices')
        answer = choices.index(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise ValueError(f'its "answer" is neither a choice nor an index from 0 to {len(choices) - 1}')
    return Question(question.strip(), tuple(each.strip() for each in choices), answer)


def _malformed(where: str, fact: str) -> EdgekitError:
    return EdgekitError(f"questions are JSON lines such as {FORMAT}", f"{where}: {fact}", "write one to a line")


def encoded(question: Question, tokenizer: ChatTokenizer) -> EncodedQuestion:
    """A question as tokens: each choice is encoded after the prompt, and scored from where it leaves its tokens.

    Raises:
        EdgekitError: no token of the prompt comes before some choice.
    """
    prompt = PROMPT.format(question=question.question)
    before = tokenizer.encode(prompt, add_bos=True)
    whole = [tokenizer.encode(f"{prompt} {choice}", add_bos=True) for choice in question.choices]
    starts = [common_prefix(before, tokens) for tokens in whole]
    shared = min(starts)
    if shared == 0 or any(start == len(tokens) for start, tokens in zip(starts, whole, strict=True)):
        raise EdgekitError(
            "a choice is scored after its question",
            f"the tokenizer parts {prompt[:60]!r} and its choices nowhere",
            "leave the question out",
        )
    return EncodedQuestion(
        tuple(before[:shared]),
        tuple(tuple(tokens[shared:]) for tokens in whole),
        tuple(len(tokens) - start for tokens, start in zip(whole, starts, strict=True)),
    )


def longest(questions: Sequence[EncodedQuestion]) -> int:
    """Most tokens that any question and choice take together."""
    return max(len(each.context) + max(map(len, each.rests)) for each in questions)
