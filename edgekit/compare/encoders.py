"""Embeddings of each encoder against the reference's, on the labelled texts that are shipped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.compare.subject import Engine, Subject, Subjects, why
from edgekit.errors import EdgekitError
from edgekit.evaluate.embeddings import EmbeddingMeasures, measure_embeddings
from edgekit.evaluate.labelled_text import SHIPPED, shipped_texts
from edgekit.progress import Progress
from edgekit.runtime.encoder_session import EncoderSession
from edgekit.runtime.encoder_text import encoder_tokenizer

Vectors = npt.NDArray[Any]


@dataclass
class EncoderRun:
    """Measures all subjects; it takes seconds, so that nothing is kept.

    Attributes:
        failures: why a subject was not measured, by label.
        seconds: that embedding the texts took, by label.
    """

    subjects: Subjects
    engine: Engine
    progress: Progress
    failures: dict[str, EdgekitError] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises EdgekitError where tokenizers differ."""
        self.texts = shipped_texts()
        first, *others = [subject for subject in self.subjects.all if subject.bundle is not None]
        self.tokens = self._encoded(first)
        for other in others:
            if self._encoded(other) != self.tokens:
                raise EdgekitError(
                    "what is compared must read the same tokens",
                    f"{other.label} makes others of the same texts than {first.label}",
                    "compare bundles of models with the same tokenizer and the same longest text",
                )

    @property
    def text(self) -> dict[str, Any]:
        """What is measured on, for JSON."""
        return {
            "name": SHIPPED.name,
            "sha256": sha256(SHIPPED.read_bytes()).hexdigest(),
            "texts": len(self.texts),
            "tokens": sum(map(len, self.tokens)),
        }

    def run(self) -> dict[str, EmbeddingMeasures]:
        """By label, without those that failed; empty where the reference did."""
        reference = self.subjects.reference
        original = self._attempt(reference)
        if original is None:
            return {}
        found = {}
        for subject in self.subjects.all:
            vectors = original if subject is reference else self._attempt(subject)
            if vectors is not None:
                try:
                    found[subject.label] = self._measures(vectors, original)
                except EdgekitError as error:
                    self._failed(subject, error)
        return found

    def _measures(self, found: Vectors, original: Vectors) -> EmbeddingMeasures:
        labels, training = [each.label for each in self.texts], [each.training for each in self.texts]
        return measure_embeddings(found, original, labels, training)

    def _attempt(self, subject: Subject) -> Vectors | None:
        try:
            self.progress.stage(f"embedding: {subject.label}", len(self.tokens), "texts")
            started = time.perf_counter()
            vectors = self._vectors(subject)
            self.seconds[subject.label] = time.perf_counter() - started
            return vectors
        except EdgekitError as error:
            self._failed(subject, error)
            return None

    def _failed(self, subject: Subject, error: EdgekitError) -> None:
        self.failures[subject.label] = error
        self.progress.note(f"{subject.label} was not measured: {why(error)}")

    def _vectors(self, subject: Subject) -> Vectors:
        if subject.bundle is not None:
            session = EncoderSession(subject.bundle, backend=self.engine.backend, threads=self.engine.threads)
            return np.asarray(session.embed(self.tokens, advance=self.progress.advance))
        from edgekit.parity.encoder_reference import TorchEncoder, encoder_info

        assert subject.checkpoint is not None
        model = TorchEncoder(subject.checkpoint, encoder_info(self.subjects.bundles[0]))
        return model.embed(self.tokens, self.progress.advance)

    def _encoded(self, subject: Subject) -> Sequence[Sequence[int]]:
        assert subject.bundle is not None
        return encoder_tokenizer(subject.bundle).encode([each.text for each in self.texts]).tokens
