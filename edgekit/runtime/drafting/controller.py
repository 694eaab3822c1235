"""Which draft the next step verifies, if any: the one that gives most tokens per second, by what was measured so far.

A step with k drafted tokens of a source takes t(k + 1) for k + 1 positions, d(k) for drafting, and gives E(k) tokens on
average; it is E(k) t(1) / (t(k + 1) + d(k)) times as fast as plain decoding. No clock is in here: times are given.

What drafting may lose is held by an account, in steps of plain decoding. It starts at one step, grows by 1.5 % of each
token and by what drafting wins, and pays what it loses. A draft is made only if the account bears its refusal, so
drafting takes no more from a conversation than one step and 1.5 %, whatever the drafter is and whatever was expected of
it. Only the first step of a size can cost more than was thought possible; the account then pays that back first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.runtime.drafting.acceptance import Acceptance, Source
from edgekit.runtime.drafting.expected import expected_tokens
from edgekit.runtime.drafting.step_times import StepTimes

#: The account: what it starts with, what each token adds, and the most of what was won that may be lost again.
CREDIT, SHARE, MOST = 1.0, 0.015, 8.0
#: In the account plain steps are this much faster than measured: what is measured is never exact.
_MARGIN = 0.01
#: Plain steps before the first draft, and drafted steps after which one is plain, to measure what it takes: the latter
#: fewer while there are few samples, so many times their number.
_FIRST_PLAIN, _PLAIN_EVERY, _PER_SAMPLE = 3, 64, 4
#: A source that is off must promise this much more than plain decoding; a length this much more than the present one.
_TURN_ON, _CHANGE = 1.03, 1.02
#: A step that takes so many times what is typical was held up by something else.
_HELD_UP = 3.0
#: Steps between two tries of a source that promises nothing: doubled by each that fails.
_FIRST_PAUSE, _LONGEST_PAUSE = 4, 128


@dataclass(frozen=True)
class Offer:
    """A draft that could be made.

    Attributes:
        most: tokens it can have.
        made: its tokens are there already, so that drafting takes no more time.
    """

    source: Source
    most: int
    made: bool = False


@dataclass
class _Tries:
    """Of a source: whether it is on, its length, and when it is tried while it is off."""

    on: bool = True
    length: int = 0
    pause: int = _FIRST_PAUSE
    waited: int = 0
    promised: float = 0.0


class Controller:
    """Chooses drafts, and learns from each step; lives as long as a conversation."""

    def __init__(self, priors: Mapping[Source, Sequence[float]] | None = None) -> None:
        """`priors`: see Acceptance."""
        self.times = StepTimes()
        self.acceptance = Acceptance(priors)
        self.account = CREDIT
        self._draft_times: dict[str, StepTimes] = {}
        self._tries: dict[Source, _Tries] = {}
        self._since_plain = 0

    @property
    def plain_s(self) -> float | None:
        """Seconds that a plain step takes now; None before the first."""
        return self.times.typical(1)

    def choose(self, offers: Sequence[Offer]) -> tuple[Offer, int] | None:
        """The offer to take and how many tokens of it; None for a plain step."""
        plain = self.plain_s
        if plain is None or self._must_measure():
            return None
        estimates = self.times.estimates(max((offer.most for offer in offers), default=0) + 1, plain)
        best: tuple[float, Offer, int] | None = None
        for offer in offers:
            tries = self._tries.setdefault(offer.source, _Tries())
            speed, length = self._best_length(offer, plain, estimates, tries.length)
            tries.promised = speed
            tries.on = speed > (1.0 if tries.on else _TURN_ON)
            tries.waited += 1
            if length and (tries.on or tries.waited > tries.pause) and (best is None or speed > best[0]):
                best = speed, offer, length
        if best is None:
            return None
        _, offer, length = best
        self._tries[offer.source].length = length
        return offer, length

    def record(self, source: Source | None, drafted: int, accepted: int, draft_s: float, step_s: float) -> None:
        """A step was made.

        Args:
            source: of the draft; None for a plain step.
            draft_s: seconds that drafting took.
            step_s: seconds that the model and judging its answer took.
        """
        plain = self.plain_s
        usual = step_s if plain is None else self.times.estimates(drafted + 1, plain)[0][-1]
        self.times.add(drafted + 1, step_s)
        if source is None or not drafted:
            self._since_plain = 0
            self.account = min(self.account + SHARE, MOST)
            return
        self._since_plain += 1
        self.acceptance.add(source, drafted, accepted)
        if draft_s:
            self._draft_times.setdefault(source.name, StepTimes()).add(drafted, draft_s)
        if plain is not None:
            # A step that something else held up would have been held up without a draft, too.
            seconds = draft_s + min(step_s, _HELD_UP * usual)
            won = accepted + 1 - (1 + _MARGIN) * seconds / plain
            self.account = min(self.account + won + SHARE * (accepted + 1), MOST)
            tries = self._tries.setdefault(source, _Tries())
            # A loss while the source is on is no failed try.
            tries.pause = _FIRST_PAUSE if tries.on or won > 0 else min(2 * tries.pause, _LONGEST_PAUSE)
            tries.waited = 0

    def observe(self, source: Source, drafted: int, accepted: int) -> None:
        """A draft was made and not verified, and by what came instead so many of its tokens were right."""
        self.acceptance.add(source, drafted, accepted)

    def why_off(self) -> str | None:
        """Why nothing is drafted now, for people; None while a source is on, or none was offered yet."""
        if not self._tries or any(tries.on for tries in self._tries.values()):
            return None
        source, tries = max(self._tries.items(), key=lambda entry: entry[1].promised)
        if not tries.promised:
            return "its refusal would cost more than it may lose"
        first = self.acceptance.chances(source, 1)[0]
        return (
            f"the best draft ({source.name}) promises no more than {tries.promised:.2f} times plain decoding's speed, "
            f"with {first:.0%} of its first tokens accepted"
        )

    def _must_measure(self) -> bool:
        """Whether the next step has to be plain, so that what plain steps take is known."""
        samples = self.times.count(1)
        return samples < _FIRST_PLAIN or self._since_plain >= min(_PLAIN_EVERY, _PER_SAMPLE * samples)

    def _best_length(
        self, offer: Offer, plain: float, estimates: tuple[list[float], list[float]], present: int
    ) -> tuple[float, int]:
        """The length that promises most of those that the account bears, with the speed it promises; 0 if none.

        The present length stays unless another is clearly better.
        """
        expected, worst = estimates
        drafting = _NO_TIME if offer.made else self._draft_times.get(offer.source.name, _UNKNOWN)
        draft, draft_worst = drafting.estimates(offer.most, plain)
        tokens = expected_tokens(self.acceptance.chances(offer.source, offer.most))
        speeds = {
            k: tokens[k] * plain / (expected[k + 1] + draft[k])
            for k in range(1, offer.most + 1)
            if (worst[k + 1] + draft_worst[k]) / plain - 1 <= self.account
        }
        if not speeds:
            return 0.0, 0
        best = max(speeds, key=lambda k: speeds[k])
        if present in speeds and speeds[best] < _CHANGE * speeds[present]:
            best = present
        return speeds[best], best


class _NoTime(StepTimes):
    """Of drafts that are there already."""

    def estimates(self, most: int, unit: float) -> tuple[list[float], list[float]]:
        nothing = [0.0] * (most + 1)
        return nothing, nothing


_NO_TIME, _UNKNOWN = _NoTime(), StepTimes()
