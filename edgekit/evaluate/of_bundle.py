"""Perplexity of a text, and answers to multiple-choice questions, under a bundle; resumable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from edgekit.bundle import Bundle
from edgekit.chat.tokenizer import tokenizer_from_bundle
from edgekit.evaluate.choice_task import ChoiceTask, EncodedQuestion, encoded
from edgekit.evaluate.choices import ChoiceResult, measure_choices
from edgekit.evaluate.perplexity import EncodedText, Perplexity, measure
from edgekit.evaluate.progress_file import ProgressFile, RowFile
from edgekit.evaluate.scoring import CHUNK
from edgekit.evaluate.windows import WindowPlan
from edgekit.progress import Progress
from edgekit.runtime.session import DecoderSession, session_from_bundle
from edgekit.runtime.threads import default_threads


def perplexity_of_bundle(
    bundle: Bundle,
    text: EncodedText,
    plan: WindowPlan,
    *,
    backend: str = "cpu",
    operators: str = "auto",
    threads: int | None = None,
    max_windows: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> Perplexity:
    """Measure, going on where an interrupted measurement of the same bundle, text and settings stopped.

    Raises: see `edgekit.evaluate.perplexity.measure`.
    """
    threads = threads or default_threads()
    subject = bundle_key(bundle, backend, operators, threads)
    file = ProgressFile(measurement_key(subject, text, plan))
    if resume:
        file.load()

    def opened() -> DecoderSession:
        return session_from_bundle(bundle, backend=backend, threads=threads, operators=operators)

    return measure(opened, text, plan, file=file, max_windows=max_windows, progress=progress)


def choices_of_bundle(
    bundle: Bundle,
    task: ChoiceTask,
    *,
    backend: str = "cpu",
    operators: str = "auto",
    threads: int | None = None,
    limit: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> ChoiceResult:
    """Ask the questions, or the first `limit` of them.

    An interrupted run of the same bundle, questions and settings goes on where it stopped.

    Raises: see `edgekit.evaluate.choices.measure_choices`.
    """
    threads = threads or default_threads()
    tokenizer = tokenizer_from_bundle(bundle)
    questions = [encoded(question, tokenizer) for question in task.questions]
    file = RowFile(choices_key(bundle_key(bundle, backend, operators, threads), questions))
    if resume:
        file.load()

    def opened() -> DecoderSession:
        return session_from_bundle(bundle, backend=backend, threads=threads, operators=operators)

    return measure_choices(opened, task, questions, file=file, limit=limit, progress=progress)


def bundle_key(bundle: Bundle, backend: str, operators: str, threads: int) -> dict[str, Any]:
    """All that numbers of a bundle depend on, beside what it is asked."""
    import onnxruntime

    return {
        "manifest_sha256": bundle.manifest_sha256,
        "backend": backend,
        "operators": operators,
        "threads": threads,
        "onnxruntime": onnxruntime.__version__,
    }


def choices_key(subject: dict[str, Any], questions: Sequence[EncodedQuestion]) -> dict[str, Any]:
    """All that scores of questions depend on. `subject`: what is asked, and with what; `questions`: all of the file."""
    tokens = [[each.context, each.rests, each.scored] for each in questions]
    return {
        **subject,
        "questions_sha256": sha256(json.dumps(tokens).encode()).hexdigest(),
        "chunk": CHUNK,
    }


def measurement_key(subject: dict[str, Any], text: EncodedText, plan: WindowPlan) -> dict[str, Any]:
    """All that the sums of a measurement depend on. `subject`: what is measured, and with what."""
    return {
        **subject,
        "tokens_sha256": sha256(json.dumps(text.tokens).encode()).hexdigest(),
        "context": plan.context,
        "stride": plan.stride,
        "bos": plan.bos,
        "chunk": CHUNK,
    }
