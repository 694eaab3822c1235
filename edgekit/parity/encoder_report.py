"""What the comparison of an encoder found: every stage with its tolerance, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.contract import KIND_ENCODER
from edgekit.parity.report import Outcome, Report


@dataclass(frozen=True)
class Likeness(Outcome):
    """The bundle's embeddings against the original model's, over all texts.

    Attributes:
        cosine_mean, cosine_min: of a text's two embeddings.
        max_abs_error: of any coordinate.
        least_cosine: what `cosine_min` must reach.
    """

    TITLE = "embeddings"

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
class EncoderReport(Report):
    """The whole comparison of one encoder's bundle; `cut` of the texts were longer than it reads."""

    texts: int
    cut: int
    embeddings: Likeness

    def outcomes(self) -> dict[str, Outcome | None]:
        return {"embeddings": self.embeddings}

    def about(self) -> dict[str, Any]:
        return {"kind": KIND_ENCODER, "texts": self.texts, "cut": self.cut}
