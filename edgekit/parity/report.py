"""What a comparison found: every stage with its tolerance, and the verdict."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from edgekit.errors import ParityFailed
from edgekit.parity.compare import Difference
from edgekit.parity.tolerance import DraftTolerance, ModelTolerance, Tolerance, WeightTolerance


@dataclass(frozen=True)
class WeightCheck:
    """A quantised matrix against the checkpoint's: relative errors of the whole and of the worst row."""

    name: str
    bits: int
    relative_error: float
    worst_row: float
    tolerance: WeightTolerance

    @property
    def objection(self) -> str | None:
        """Why it fails; None when it passes."""
        for what, found, most in (
            ("the matrix", self.relative_error, self.tolerance.matrix),
            ("a row", self.worst_row, self.tolerance.row),
        ):
            if not found <= most:
                return (
                    f"the relative error of {what} is {found:.3g}, at most {most:g} is due to {self.bits}-bit rounding"
                )
        return None


@dataclass(frozen=True)
class Stage:
    """One tensor of the graph in one way of running it.

    Attributes:
        mode: "prefill" (the whole text at once), "chunked", "decode" (the last tokens one by one), all three with
            activations that are not rounded to 8 bits; or "runtime" (the session that `edgekit run` uses, token by
            token).
        name: "hidden.3" (after 3 layers), "cache.3.key", "cache.3.value" (of layer 3), "features" (of draft heads), or
            "logits".
        difference: the worst over all prompts and positions.
    """

    mode: str
    name: str
    difference: Difference
    tolerance: Tolerance

    @property
    def objection(self) -> str | None:
        """Why it fails; None when it passes."""
        return self.tolerance.objection(self.difference)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "mode": self.mode,
            "name": self.name,
            **asdict(self.difference),
            "tolerance": asdict(self.tolerance),
            "passed": self.objection is None,
        }


@dataclass(frozen=True)
class Outcome(ABC):
    """What the whole model does, judged. TITLE names it where it fails."""

    TITLE: ClassVar[str]

    @property
    @abstractmethod
    def objection(self) -> str | None:
        """Why it fails; None when it passes."""


@dataclass(frozen=True)
class Agreement(Outcome):
    """The bundle's choices against the original model's, at every position of every prompt and its continuation.

    Attributes:
        kl_mean: mean KL(original ‖ bundle) in nats.
        kl_max: the largest of any position.
        top1: share of positions with the same most likely token.
        greedy_tokens: how many tokens the original model continued each prompt by.
        greedy_prefixes: how many of them the bundle chooses too before its first other choice, for each prompt.
    """

    TITLE = "choices"

    positions: int
    kl_mean: float
    kl_max: float
    top1: float
    greedy_tokens: int
    greedy_prefixes: tuple[int, ...]
    tolerance: ModelTolerance

    @property
    def objection(self) -> str | None:
        """Why it fails; None when it passes."""
        if not self.kl_mean <= self.tolerance.kl_mean:
            return f"the mean KL divergence {self.kl_mean:.3g} is above {self.tolerance.kl_mean:g} nats"
        if not self.top1 >= self.tolerance.top1:
            return f"{self.top1:.1%} of the first choices agree, at least {self.tolerance.top1:.0%} must"
        return None


@dataclass(frozen=True)
class DraftAgreement(Outcome):
    """The draft graph beside its heads in PyTorch in float32, both given the original model's features.

    Each distribution is over the draft vocabulary: what a computed component says of a drafted token.

    Attributes:
        positions: at how many a draft was made.
        kl_mean: mean KL(heads ‖ graph) in nats.
        variation_mean, variation_max: total variation, the mean and the largest of any.
        top1: share of distributions with the same most likely token.
        weights_variation: mean total variation of the components' weights.
    """

    TITLE = "draft heads"

    positions: int
    kl_mean: float
    variation_mean: float
    variation_max: float
    top1: float
    weights_variation: float
    tolerance: DraftTolerance

    @property
    def objection(self) -> str | None:
        """Why it fails; None when it passes."""
        for what, found, most in (
            ("drafted tokens", self.variation_mean, self.tolerance.tokens),
            ("the components' weights", self.weights_variation, self.tolerance.weights),
        ):
            if not found <= most:
                return f"the mean total variation of {what} is {found:.3g}, at most {most:g} is due to rounding"
        return None


@dataclass(frozen=True)
class Report(ABC):
    """What comparisons of all kinds of models have in common.

    Attributes:
        checkpoint: what it was compared with.
        activations: what matrix products read their inputs in when the bundle runs: "float32", "float16" or "int8".
        reference: "original" when the graph was compared with the checkpoint's own weights, "dequantized" when with
            the weights that the bundle's codes stand for.
    """

    checkpoint: str
    form: str
    dtype: str
    activations: str
    reference: str
    weights: tuple[WeightCheck, ...]
    stages: tuple[Stage, ...]

    @abstractmethod
    def outcomes(self) -> dict[str, Outcome | None]:
        """What the whole model does, by its key in JSON, in the order in which it is judged; None where there is
        nothing of that kind."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What only this kind of report says, for JSON."""

    @property
    def failure(self) -> str | None:
        """The first gate that fails, in the order in which data flows, with the reason; None when all pass."""
        for weight in self.weights:
            if weight.objection:
                return f"weight {weight.name}: {weight.objection}"
        for stage in self.stages:
            if stage.objection:
                return f"{stage.mode}, {stage.name}: {stage.objection}"
        for outcome in self.outcomes().values():
            if outcome is not None and outcome.objection:
                return f"{outcome.TITLE}: {outcome.objection}"
        return None

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return self.failure is None

    @property
    def against(self) -> str:
        """Whose weights PyTorch held, in words."""
        return "the weights it stores" if self.reference == "dequantized" else "the checkpoint's weights"

    def require(self) -> None:
        """Raise ParityFailed, naming the first gate that fails, unless all hold."""
        if self.failure is not None:
            raise ParityFailed(
                f"a bundle must compute what PyTorch computes with {self.against}, within the tolerance of its numbers",
                self.failure,
                "do not use this bundle; export it again, and report it if that does not help",
            )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not a finite number becomes null."""
        document = {
            "passed": self.passed,
            "failure": self.failure,
            **self.about(),
            "checkpoint": self.checkpoint,
            "form": self.form,
            "dtype": self.dtype,
            "activations": self.activations,
            "reference": self.reference,
            **{
                key: None if outcome is None else {**asdict(outcome), "passed": outcome.objection is None}
                for key, outcome in self.outcomes().items()
            },
            "stages": [stage.to_dict() for stage in self.stages],
            "weights": [{**asdict(weight), "passed": weight.objection is None} for weight in self.weights],
        }
        result: dict[str, Any] = finite(document)
        return result


@dataclass(frozen=True)
class ParityReport(Report):
    """The whole comparison of one decoder's bundle; `draft` is of its draft graph, None for a bundle without heads."""

    prompts: int
    model: Agreement
    draft: DraftAgreement | None = None

    def outcomes(self) -> dict[str, Outcome | None]:
        return {"model": self.model, "draft": self.draft}

    def about(self) -> dict[str, Any]:
        return {"prompts": self.prompts}


def finite(value: Any) -> Any:
    """The value with None in place of numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
