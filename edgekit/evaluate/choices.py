"""Multiple-choice questions: which answer the model holds for the likeliest.

Each choice is scored by the log-likelihood of its tokens after the question, and by the same divided by its characters,
so that long answers are not at a disadvantage: "acc" and "acc_norm" of EleutherAI's lm-evaluation-harness
(lm_eval/api/task.py, MultipleChoiceTask), with its prompt of one line each for question and answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgekit.errors import EdgekitError
from edgekit.evaluate.choice_task import ChoiceTask, EncodedQuestion, Question, longest
from edgekit.evaluate.progress_file import RowFile
from edgekit.evaluate.scoring import CHUNK, token_nats
from edgekit.progress import Progress, SilentProgress
from edgekit.runtime.session import DecoderSession
from edgekit.words import counted


@dataclass(frozen=True)
class ChoiceResult:
    """Shares of questions whose right answer scored highest.

    Attributes:
        accuracy, normalised: by log-likelihood; by log-likelihood for each character.
        *_error: standard error of a mean over the questions; None for a single one.
        chance: what guessing reaches.
        right: for each question whether it was answered rightly, by either score.
    """

    questions: int
    accuracy: float
    accuracy_error: float | None
    normalised: float
    normalised_error: float | None
    chance: float
    right: tuple[tuple[bool, bool], ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the single questions."""
        return {name: value for name, value in asdict(self).items() if name != "right"}


def log_likelihoods(session: DecoderSession, question: EncodedQuestion) -> list[float]:
    """Of each choice the sum of ln p(token | tokens before it) over its scored tokens.

    Raises:
        SessionError: a logit is not finite; see also DecoderSession.forward.
    """
    session.reset()
    for start in range(0, len(question.context), CHUNK):
        piece = question.context[start : start + CHUNK]
        after = session.forward(np.array([piece], np.int64))[0, -1:]
    found = []
    for rest, scored in zip(question.rests, question.scored, strict=True):
        rows = after
        if len(rest) > 1:
            rows = np.concatenate([after, session.forward(np.array([rest[:-1]], np.int64), keep=0)[0]])
            session.rollback(len(question.context))
        nats = token_nats(rows[-scored:], np.array(rest[-scored:]))
        found.append(-math.fsum(map(float, nats)))
    return found


def measure_choices(
    open_session: Callable[[], DecoderSession],
    task: ChoiceTask,
    questions: Sequence[EncodedQuestion],
    *,
    file: RowFile,
    limit: int | None = None,
    progress: Progress | None = None,
) -> ChoiceResult:
    """Ask one question after the other; those that `file` holds already are not asked again.

    Args:
        limit: ask only the first so many.
        open_session: called when there is a question left; the session is closed at the end.

    Raises:
        EdgekitError: a question does not fit into the session's context.
        SessionError, DoesNotFit: see DecoderSession.forward.
    """
    progress = progress or SilentProgress()
    questions = questions[:limit]
    done, count = min(len(file.rows), len(questions)), len(questions)
    if done:
        progress.note(f"{done} of {counted(count, 'questions')} were asked before (--restart asks them again)")
    if done < count:
        progress.stage("loading the model")
        session = open_session()
        try:
            if longest(questions) > session.capacity:
                raise EdgekitError(
                    "a question and its choice must fit into the model's context",
                    f"the longest has {longest(questions)} tokens, {session.description} holds {session.capacity}",
                    "leave long questions out",
                )
            progress.stage(f"asking ({session.name})", count - done, "questions")
            for question in questions[done:]:
                file.rows.append(log_likelihoods(session, question))
                file.save()
                progress.advance()
        finally:
            session.close()
            file.write()
    return judged(task.questions[:count], file.rows[:count])


def judged(questions: Sequence[Question], scores: Sequence[Sequence[float]]) -> ChoiceResult:
    """The result from each choice's log-likelihood."""
    right = []
    for question, values in zip(questions, scores, strict=True):
        each = [value / len(choice) for value, choice in zip(values, question.choices, strict=True)]
        right.append((_first(values) == question.answer, _first(each) == question.answer))
    plain, normalised = ([float(both[index]) for both in right] for index in (0, 1))
    return ChoiceResult(
        questions=len(right),
        accuracy=math.fsum(plain) / len(plain),
        accuracy_error=standard_error(plain),
        normalised=math.fsum(normalised) / len(normalised),
        normalised_error=standard_error(normalised),
        chance=math.fsum(1 / len(question.choices) for question in questions) / len(questions),
        right=tuple(right),
    )


def _first(values: Sequence[float]) -> int:
    """Index of the largest; the first of equals."""
    return max(range(len(values)), key=lambda index: values[index])


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of independent values; None for a single one."""
    count = len(values)
    if count < 2:
        return None
    mean = math.fsum(values) / count
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)


def difference(found: ChoiceResult, reference: ChoiceResult) -> dict[str, float | None]:
    """found - reference of both accuracies, on the same questions; errors are those of the paired differences."""
    result: dict[str, float | None] = {}
    for index, name in enumerate(("accuracy", "normalised")):
        pairs = zip(found.right, reference.right, strict=True)
        steps = [float(ours[index]) - float(theirs[index]) for ours, theirs in pairs]
        result[name] = math.fsum(steps) / len(steps)
        result[f"{name}_error"] = standard_error(steps)
    return result
