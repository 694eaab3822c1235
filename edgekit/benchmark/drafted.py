"""Timing drafted decoding beside plain decoding: the same conversations, both ways, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgekit.benchmark.agreement import Agreement, agreement
from edgekit.benchmark.conversations import Questions
from edgekit.benchmark.samples import summary
from edgekit.bundle import Bundle
from edgekit.chat.conversation import Conversation
from edgekit.chat.template import ChatTemplate
from edgekit.chat.tokenizer import ChatTokenizer
from edgekit.progress import Progress
from edgekit.runtime.drafting.drafting import Drafting
from edgekit.runtime.drafting.interface import Drafter
from edgekit.runtime.drafting.open import policy_for
from edgekit.runtime.drafting.statistics import DraftStatistics
from edgekit.runtime.generate import generate
from edgekit.runtime.options import Finished, GenerationOptions
from edgekit.runtime.sampling import SamplingOptions
from edgekit.runtime.session import DecoderSession

#: Blocks are timed in so many rounds, each length once a round, after one that is not counted.
_ROUNDS = 8
#: Tokens in the cache when blocks are timed, or half of the context where that is less.
_DEPTH = 256


@dataclass(frozen=True)
class Answer:
    """One answer, both ways. Seconds are of decoding, from the first token on."""

    group: str
    prompt_tokens: int
    tokens: tuple[int, int]
    seconds: tuple[float, float]
    agreement: Agreement
    draft: DraftStatistics

    @property
    def rates(self) -> tuple[float, float]:
        """Tokens per second, plain and drafted."""
        plain, drafted = ((count - 1) / seconds for count, seconds in zip(self.tokens, self.seconds, strict=True))
        return plain, drafted


@dataclass
class DraftBenchmark:
    """Measures a session with its drafters.

    Attributes:
        count: tokens of each draft; None for the controller's choice.
        answer_tokens: at most, of each answer.
    """

    bundle: Bundle
    session: DecoderSession
    drafters: Sequence[Drafter]
    tokenizer: ChatTokenizer
    template: ChatTemplate
    count: int | None
    answer_tokens: int
    answers: list[Answer] = field(default_factory=list)

    def run(self, conversations: Sequence[Questions], progress: Progress) -> dict[str, Any]:
        """Ask everything both ways; the report for JSON.

        Raises:
            SessionError: drafts change what the model says, or the engine failed.
            PromptError: a question is refused by the template, or does not fit.
        """
        progress.stage("drafting", sum(len(each.turns) for each in conversations), "answers")
        for number, questions in enumerate(conversations):
            self._ask(questions, drafted_first=number % 2 == 1, progress=progress)
        longest = self.count or max(drafter.longest for drafter in self.drafters)
        progress.stage("timing blocks", _ROUNDS + 1, "rounds")
        return {
            "answer_tokens": self.answer_tokens,
            "groups": [self._group(name) for name in dict.fromkeys(answer.group for answer in self.answers)],
            "answers": [
                {
                    "group": answer.group,
                    "prompt_tokens": answer.prompt_tokens,
                    "tokens": answer.tokens[0],
                    "plain_tokens_per_s": answer.rates[0],
                    "drafted_tokens_per_s": answer.rates[1],
                    "speed_up": answer.rates[1] / answer.rates[0],
                    "tokens_per_step": answer.draft.tokens_per_step,
                    "agreement": asdict(answer.agreement),
                }
                for answer in self.answers
            ],
            "blocks": self._blocks(longest + 1, progress),
        }

    def _ask(self, questions: Questions, *, drafted_first: bool, progress: Progress) -> None:
        """A conversation: what drafting learns in one answer serves the next. The answers kept are the plain ones."""
        drafting = Drafting(self.drafters, policy_for(self.bundle, self.count, SamplingOptions()))
        conversation = Conversation()
        for question in questions.turns:
            conversation.add("user", question)
            text = self.template.render(conversation.as_dicts(), special_tokens=self.tokenizer.special_tokens)
            prompt = self.tokenizer.encode(text)
            ways: list[Drafting | None] = [drafting, None] if drafted_first else [None, drafting]
            ends = {way is not None: self._answer(prompt, way) for way in ways}
            plain, drafted = ends[False], ends[True]
            agreed = agreement(self.session, prompt, plain.tokens, drafted.tokens)
            conversation.add("assistant", plain.text)
            progress.advance()
            if min(len(plain.tokens), len(drafted.tokens)) < 2:
                continue  # nothing was decoded after the first token
            assert drafted.statistics.draft is not None
            self.answers.append(
                Answer(
                    questions.group,
                    len(prompt),
                    (len(plain.tokens), len(drafted.tokens)),
                    (plain.statistics.decode_s, drafted.statistics.decode_s),
                    agreed,
                    drafted.statistics.draft,
                )
            )

    def _answer(self, prompt: list[int], drafting: Drafting | None) -> Finished:
        options = GenerationOptions(
            max_new_tokens=self.answer_tokens,
            stop_tokens=frozenset(self.bundle.manifest.tokens.eos),
            on_full="error",
        )
        *_, end = generate(self.session, self.tokenizer, prompt, options, drafting=drafting)
        assert isinstance(end, Finished)
        return end

    def _group(self, name: str) -> dict[str, Any]:
        answers = [answer for answer in self.answers if answer.group == name]
        total = DraftStatistics()
        for answer in answers:
            total.merge(answer.draft)
        ratios = [answer.rates[1] / answer.rates[0] for answer in answers]
        return {
            "group": name,
            "answers": len(answers),
            "identical": sum(answer.agreement.identical for answer in answers),
            "tokens": sum(answer.tokens[0] for answer in answers),
            "plain_tokens_per_s": summary([answer.rates[0] for answer in answers]),
            "drafted_tokens_per_s": summary([answer.rates[1] for answer in answers]),
            "speed_up": {**summary(ratios), "quartiles": _quartiles(ratios)},
            "draft": total.to_dict(),
        }

    def _blocks(self, most: int, progress: Progress) -> list[dict[str, Any]]:
        """What a step of 1, 2, ... `most` positions takes, in rounds so that a drift meets all alike."""
        depth = min(_DEPTH, self.session.capacity // 2)
        tokens = np.random.default_rng(0).integers(0, self.bundle.manifest.model.vocab_size, (1, depth + most))
        self.session.reset()
        self.session.forward(np.ascontiguousarray(tokens[:, :depth]))
        seconds: dict[int, list[float]] = {positions: [] for positions in range(1, most + 1)}
        for round_ in range(_ROUNDS + 1):
            for positions, samples in seconds.items():
                block = np.ascontiguousarray(tokens[:, depth : depth + positions])
                started = time.perf_counter()
                self.session.forward(block, keep=positions).argmax(-1)
                if round_:
                    samples.append(time.perf_counter() - started)
                self.session.rollback(depth)
            progress.advance()
        one = statistics.median(seconds[1])
        return [
            {"positions": k, "depth": depth, "step_s": summary(s), "ratio": statistics.median(s) / one}
            for k, s in seconds.items()
        ]


def _quartiles(samples: Sequence[float]) -> list[float]:
    """First quartile, median, third quartile, interpolated with both ends counted."""
    if len(samples) == 1:
        return [samples[0]] * 3
    return statistics.quantiles(samples, n=4, method="inclusive")
