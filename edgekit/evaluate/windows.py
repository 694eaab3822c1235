"""Cutting a long text into windows that fit a context, so that each token is predicted once."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import EdgekitError


@dataclass(frozen=True)
class WindowPlan:
    """How a text is cut.

    Attributes:
        context: tokens of a window, the first token of the text that `bos` adds included.
        stride: text tokens between the starts of two windows. At the most it leaves no overlap; below that a window
            begins with tokens that an earlier one predicted, and only the others count.
        bos: a token put before every window and never predicted; None for none.
    """

    context: int
    stride: int
    bos: int | None = None

    def __post_init__(self) -> None:
        if self.context < 2:
            raise EdgekitError("a window must hold at least two tokens", f"the context is {self.context}")
        if not 1 <= self.stride <= self.room:
            raise EdgekitError(
                "the stride must be at least 1 and at most the text tokens of a window",
                f"it is {self.stride}, a window of {self.context} holds {self.room}",
                f"choose --stride between 1 and {self.room}",
            )

    @property
    def room(self) -> int:
        """Text tokens of a full window."""
        return self.context - (self.bos is not None)


@dataclass(frozen=True)
class Window:
    """Tokens to process, and how many of the last ones to predict from those before them."""

    tokens: tuple[int, ...]
    scored: int


def plan_of(context: int, stride: int | None, bos: int | None) -> WindowPlan:
    """The plan with the default stride, which leaves no overlap. Raises EdgekitError."""
    return WindowPlan(context, context - (bos is not None) if stride is None else stride, bos)


def window_count(length: int, plan: WindowPlan) -> int:
    """Windows of a text of `length` tokens that predict at least one token."""
    return sum(1 for start in range(0, length, plan.stride) if _scored(start, length, plan) > 0)


def window_at(tokens: list[int], index: int, plan: WindowPlan) -> Window:
    """The window that starts at token index * stride. The last window may be shorter; the text's very first token is
    predicted only after a `bos`."""
    start = index * plan.stride
    text = tokens[start : start + plan.room]
    before = [plan.bos] if plan.bos is not None else []
    return Window((*before, *text), _scored(start, len(tokens), plan))


def _scored(start: int, length: int, plan: WindowPlan) -> int:
    """Text tokens of the window at `start` that no earlier window predicted, and that have a token before them."""
    end = min(start + plan.room, length)
    earlier = 0 if start == 0 else min(start - plan.stride + plan.room, length)
    first = max(start, earlier)
    if first == start and plan.bos is None:
        first += 1  # nothing in the window comes before it
    return max(0, end - first)
