"""What the comparison of an encoder found: every stage with its tolerance, and the verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgekit.errors import ParityFailed
from edgekit.parity.report import Stage, WeightCheck, finite


@dataclass(frozen=True)
class Likeness:
    """The bundle's embeddings against the original model's, over all texts.

    Attributes:
        cosine_mean, cosine_min: of a text's two embeddings.
        max_abs_error: of any coordinate.
        least_cosine: what `cosine_min` must reach.
    """

    texts: int
    cosine_mean: float
    cosine_min: float
    max_abs_error: float
    least_cosine: float

    @property
    def objection(self) -> str | None:
        """Why it fails; None when it passes."""
        if not self.cosine_min >= self.least_cosine:
            return f"the smallest cosine to the original embedding, {self.cosine_min:.6f}, is below {self.least_cosine}"
        return None


@dataclass(frozen=True)
class EncoderReport:
    """The whole comparison of one encoder's bundle; fields as in `edgekit.parity.report.ParityReport`."""

    checkpoint: str
    form: str
    dtype: str
    activations: str
    reference: str
    texts: int
    cut: int
    weights: tuple[WeightCheck, ...]
    stages: tuple[Stage, ...]
    embeddings: Likeness

    @property
    def failure(self) -> str | None:
        """The first gate that fails, in the order in which data flows, with the reason; None when all pass."""
        for weight in self.weights:
            if weight.objection:
                return f"weight {weight.name}: {weight.objection}"
        for stage in self.stages:
            if stage.objection:
                return f"{stage.mode}, {stage.name}: {stage.objection}"
        return f"embeddings: {self.embeddings.objection}" if self.embeddings.objection else None

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return self.failure is None

    def require(self) -> None:
        """Raise ParityFailed, naming the first gate that fails, unless all hold."""
        if self.failure is not None:
            raise ParityFailed(
                "a bundle must compute what PyTorch computes, within the tolerance of its numbers",
                self.failure,
                "do not use this bundle; export it again, and report it if that does not help",
            )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not a finite number becomes null."""
        document = {
            "passed": self.passed,
            "failure": self.failure,
            "kind": "encoder",
            "checkpoint": self.checkpoint,
            "form": self.form,
            "dtype": self.dtype,
            "activations": self.activations,
            "reference": self.reference,
            "texts": self.texts,
            "cut": self.cut,
            "embeddings": {**asdict(self.embeddings), "passed": self.embeddings.objection is None},
            "stages": [stage.to_dict() for stage in self.stages],
            "weights": [{**asdict(weight), "passed": weight.objection is None} for weight in self.weights],
        }
        result: dict[str, Any] = finite(document)
        return result
