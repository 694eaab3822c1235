"""What is left of a model: an encoder's embeddings; a decoder's perplexity, and its answers to choices."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

from edgekit.checkpoint import Checkpoint
from edgekit.contract import KIND_ENCODER
from edgekit.evaluate.choice_task import encoded, longest, read_questions
from edgekit.evaluate.choices import judged, log_likelihoods
from edgekit.evaluate.embeddings import measure_embeddings
from edgekit.evaluate.labelled_text import shipped_texts
from edgekit.evaluate.perplexity import EncodedText, measure, windows_of
from edgekit.evaluate.windows import plan_of
from edgekit.files import sha256_of
from edgekit.models.registry import encoder_from_checkpoint, kind_of, model_from_checkpoint
from edgekit.parity.reference_choices import tokenizer_from_checkpoint
from edgekit.parity.torch_session import TorchSession

from .drawing import CHOICES, EMBEDDINGS, shown_of

#: Characters of text that are read for each token that is wanted.
CHARACTERS = 12


class Encoders:
    """Judges by embeddings.

    Attributes:
        columns: of the table.
        drawn: columns of the plot, each with its label and what is drawn of a value.
        settings: all that the values depend on, for JSON.
    """

    def __init__(self, original: Checkpoint, arguments: argparse.Namespace) -> None:
        from tokenizers import Tokenizer

        self.columns, self.drawn = shown_of(EMBEDDINGS)
        self.settings: dict[str, Any] = {}
        self._texts = shipped_texts()
        tokenizer = Tokenizer.from_str(original.tokenizer_files()["tokenizer.json"].decode())
        tokenizer.no_padding()
        self._tokens = [tokenizer.encode(each.text).ids[:256] for each in self._texts]
        self._original = self._embedded(original)

    def _embedded(self, checkpoint: Checkpoint) -> Any:
        model, rows = encoder_from_checkpoint(checkpoint), []
        with torch.no_grad():
            for tokens in self._tokens:
                ids = torch.tensor([tokens])
                rows.append(model(ids, torch.ones_like(ids)).hidden[-1][0].mean(0).numpy())
        found = np.stack(rows)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def judge(self, checkpoint: Checkpoint) -> dict[str, float]:
        """Values by column, and more."""
        labels, training = [each.label for each in self._texts], [each.training for each in self._texts]
        return measure_embeddings(self._embedded(checkpoint), self._original, labels, training).to_dict()


class Decoders:
    """Judges by perplexity in windows of several lengths, and by multiple-choice questions where a file is given.

    The same windows, questions and scores as `edgekit eval`. Attributes as of Encoders.
    """

    def __init__(self, original: Checkpoint, arguments: argparse.Namespace) -> None:
        tokenizer = tokenizer_from_checkpoint(original)
        contexts = sorted({int(context) for context in arguments.contexts.split(",")})
        wanted = max(contexts) * arguments.windows
        content = arguments.text.read_text("utf-8")[: CHARACTERS * wanted]
        tokens = tokenizer.encode(content)
        self._windows, self._plans = arguments.windows, {each: plan_of(each, None, tokenizer.bos) for each in contexts}
        self._text = EncodedText(arguments.text.name, tokens, len(content.encode()), sha256_of(arguments.text))
        for context, plan in self._plans.items():
            count = windows_of(self._text, plan, arguments.windows)
            if count < arguments.windows:
                raise SystemExit(f"--text holds {count} windows of {context} tokens, and not {arguments.windows}")
        self._questions: list[Any] = []
        self.settings = {"contexts": contexts, "windows": arguments.windows, "text": self._text.sha256}
        if arguments.choices is not None:
            self._task = read_questions(arguments.choices)
            self._asked = self._task.questions[: arguments.questions]
            self._questions = [encoded(question, tokenizer) for question in self._asked]
            self.settings |= {"choices": self._task.sha256, "questions": len(self._questions)}
        names = [f"perplexity_{context}" for context in contexts]
        self.columns, self.drawn = shown_of([*names, *(CHOICES if self._questions else ())])
        self._positions = max([*contexts, longest(self._questions) if self._questions else 0])

    def judge(self, checkpoint: Checkpoint) -> dict[str, float]:
        """Values by column, each with its standard error."""
        session = TorchSession(model_from_checkpoint(checkpoint, max_positions=self._positions))
        found: dict[str, Any] = {}
        for context, plan in self._plans.items():
            result = measure(lambda: session, self._text, plan, max_windows=self._windows)
            found |= {
                f"perplexity_{context}": result.perplexity,
                f"perplexity_{context}_error": result.standard_error,
            }
        if self._questions:
            answers = judged(self._asked, [log_likelihoods(session, question) for question in self._questions])
            found |= answers.to_dict()
        return found


def judge_of(original: Checkpoint, arguments: argparse.Namespace) -> Encoders | Decoders:
    """The judge of a checkpoint's kind."""
    return (Encoders if kind_of(original.config) == KIND_ENCODER else Decoders)(original, arguments)
