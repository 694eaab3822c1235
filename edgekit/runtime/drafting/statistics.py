"""What drafting did in a generation, or in a whole conversation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class SourceStatistics:
    """Of one drafter.

    Attributes:
        steps: by tokens drafted.
        judged, kept: tokens looked at and accepted, by position; those after a refusal are not looked at.
    """

    steps: Counter[int] = field(default_factory=Counter)
    judged: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def add(self, drafted: int, accepted: int) -> None:
        """A step with so many tokens, of which the first `accepted` were kept."""
        self.steps[drafted] += 1
        for counts in (self.judged, self.kept):
            counts.extend([0] * (drafted - len(counts)))
        for place in range(min(accepted + 1, drafted)):
            self.judged[place] += 1
            self.kept[place] += place < accepted

    def merge(self, other: SourceStatistics) -> None:
        """Add what another generation counted."""
        self.steps += other.steps
        for mine, theirs in ((self.judged, other.judged), (self.kept, other.kept)):
            mine.extend([0] * (len(theirs) - len(mine)))
            for place, count in enumerate(theirs):
                mine[place] += count

    @property
    def drafted(self) -> int:
        """Tokens."""
        return sum(length * count for length, count in self.steps.items())

    @property
    def accepted(self) -> int:
        """Tokens."""
        return sum(self.kept)

    @property
    def acceptance(self) -> list[float | None]:
        """By position, of the tokens looked at; None where there were none."""
        return [kept / judged if judged else None for kept, judged in zip(self.kept, self.judged, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "steps": {str(length): count for length, count in sorted(self.steps.items())},
            "drafted": self.drafted,
            "accepted": self.accepted,
            "judged_by_position": list(self.judged),
            "acceptance_by_position": self.acceptance,
        }


@dataclass
class DraftStatistics:
    """Counts and seconds of the steps after the first token.

    Attributes:
        steps: of the model; plain_steps: those of them without a draft.
        tokens: that these steps gave. A text that ends within a draft uses fewer.
        sources: by drafter.
        draft_s: seconds of finding and making drafts; step_s: of everything else.
        compared_s: those of both of the steps that were made while it was known what a plain step takes.
        plain_s: seconds that plain steps would have taken for the tokens of those; None before there were any.
        plain_step_s: seconds of a plain step, as measured last.
        off: why nothing is drafted at the end; None where something is.
    """

    steps: int = 0
    plain_steps: int = 0
    tokens: int = 0
    sources: dict[str, SourceStatistics] = field(default_factory=dict)
    draft_s: float = 0.0
    step_s: float = 0.0
    compared_s: float = 0.0
    plain_s: float | None = None
    plain_step_s: float | None = None
    off: str | None = None

    def add(
        self, source: str, drafted: int, accepted: int, draft_s: float, step_s: float, plain_step_s: float | None = None
    ) -> None:
        """A step was made.

        Args:
            drafted: 0 for a plain one.
            plain_step_s: what each of its tokens would have taken without drafts; None where that is not known.
        """
        self.steps += 1
        self.tokens += accepted + 1
        self.draft_s += draft_s
        self.step_s += step_s
        self.plain_step_s = plain_step_s
        if plain_step_s is not None:
            self.compared_s += draft_s + step_s
            self.plain_s = (self.plain_s or 0.0) + (accepted + 1) * plain_step_s
        if drafted:
            self.sources.setdefault(source, SourceStatistics()).add(drafted, accepted)
        else:
            self.plain_steps += 1

    def merge(self, other: DraftStatistics) -> None:
        """Add what another generation counted; what is told of the end is the other's."""
        for name in ("steps", "plain_steps", "tokens", "draft_s", "step_s", "compared_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.plain_s is not None:
            self.plain_s = (self.plain_s or 0.0) + other.plain_s
        self.plain_step_s, self.off = other.plain_step_s, other.off
        for name, source in other.sources.items():
            self.sources.setdefault(name, SourceStatistics()).merge(source)

    @property
    def tokens_per_step(self) -> float | None:
        """None before the first step."""
        return self.tokens / self.steps if self.steps else None

    @property
    def speed_up(self) -> float | None:
        """Over plain decoding in the same session, of the steps that can be compared; None where these took less than
        half of the time, and so say little of the whole.
        """
        enough = 0 < self.compared_s >= (self.draft_s + self.step_s) / 2
        return self.plain_s / self.compared_s if self.plain_s is not None and enough else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the attributes and what follows from them."""
        return {
            **vars(self),
            "sources": {name: source.to_dict() for name, source in self.sources.items()},
            "tokens_per_step": self.tokens_per_step,
            "speed_up": self.speed_up,
        }

    def summary(self) -> str:
        """A few words for people."""
        if not self.sources:
            return "nothing drafted"
        accepted, drafted = (sum(getattr(s, name) for s in self.sources.values()) for name in ("accepted", "drafted"))
        words = f"{self.tokens_per_step or 0:.2f} tokens a step ({accepted} of {drafted} drafted accepted)"
        return words + (f", {self.speed_up:.2f} times plain decoding" if self.speed_up is not None else "")

    def details(self) -> list[str]:
        """Lines for people: each source, times, and why nothing is drafted where that is so."""
        lines = []
        for name, source in self.sources.items():
            chances = " ".join("–" if each is None else f"{each:.0%}" for each in source.acceptance)
            steps = ", ".join(f"{count} of {length}" for length, count in sorted(source.steps.items()))
            lines.append(f"{name}: accepted by position {chances}; steps by tokens drafted: {steps}")
        if self.steps:
            plain = "" if self.plain_step_s is None else f", a plain step {self.plain_step_s * 1e3:.1f} ms"
            lines.append(
                f"steps: {self.steps}, {self.plain_steps} of them plain; drafting {self.draft_s:.2f} s, "
                f"the rest {self.step_s:.2f} s{plain}"
            )
        if self.off:
            lines.append(f"drafting is off: {self.off}")
        return lines
