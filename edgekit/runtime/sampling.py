"""From logits to the next token. Pure functions; a seed makes every choice repeatable bit for bit.

The filters apply in this order, as in transformers: repetition penalty, temperature, top-k, top-p, min-p. Top-p is
taken over the probabilities that top-k left, and min-p over those that top-p left.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.errors import EdgekitError, SessionError

#: First guess at how many of the largest logits hold the nucleus; grown eightfold until they do.
_NUCLEUS_GUESS = 256
#: Bits of a random number; what it cannot hit has no probability.
_RANDOM_BITS = 53


@dataclass(frozen=True)
class SamplingOptions:
    """How to choose a token.

    Attributes:
        temperature: divides the logits; 0 is greedy: the most likely token, the lowest id among equals.
        top_k: keep the k most likely tokens and those that tie with the last of them; 0 keeps all.
        top_p: keep a token while the mass of the more likely ones is below this; 1 keeps all.
        min_p: keep a token with at least this share of the most likely one's probability; 0 keeps all.
        repetition_penalty: divides positive and multiplies negative logits of tokens in the history; 1 is none.
        seed: start of the random numbers; None draws one (see `seeded`).
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _require(0.0 <= self.temperature < float("inf"), "temperature must be 0 (greedy) or more", self.temperature)
        _require(self.top_k >= 0, "top-k must be 0 (off) or more", self.top_k)
        _require(0.0 < self.top_p <= 1.0, "top-p must lie above 0 and at most at 1 (off)", self.top_p)
        _require(0.0 <= self.min_p <= 1.0, "min-p must lie between 0 (off) and 1", self.min_p)
        _require(
            0.0 < self.repetition_penalty < float("inf"),
            "the repetition penalty must be above 0 (1 is off)",
            self.repetition_penalty,
        )
        _require(self.seed is None or self.seed >= 0, "a seed must be 0 or more", self.seed)

    @property
    def greedy(self) -> bool:
        """Whether the choice involves no chance."""
        return self.temperature == 0.0


def seeded(options: SamplingOptions) -> tuple[int, np.random.Generator]:
    """The seed in use and its generator. A seed that was not given is drawn, so that it can be reported."""
    seed = secrets.randbits(32) if options.seed is None else options.seed
    return seed, np.random.Generator(np.random.PCG64(seed))


def sample(
    logits: npt.NDArray[np.float32], options: SamplingOptions, history: Sequence[int], generator: np.random.Generator
) -> int:
    """Choose one token.

    Args:
        logits: float32 [V].
        history: every token so far, prompt included; only the repetition penalty reads it.
        generator: advanced by one number unless the choice is greedy.

    Raises:
        SessionError: the logits hold no finite maximum.
    """
    if options.greedy:
        return _argmax(_penalised(logits, options.repetition_penalty, history))
    ids, probabilities = candidates(logits, options, history)
    return draw(ids, probabilities, generator)


def distribution(
    logits: npt.NDArray[np.float32], options: SamplingOptions, history: Sequence[int]
) -> npt.NDArray[np.float64]:
    """The probabilities that `sample` draws from, float64 [V]; one-hot when greedy. See `sample` for the rest.

    Tokens that together hold less than 2^-53, which is the step of a random number, may have probability 0.
    """
    result = np.zeros(logits.shape[-1])
    ids, probabilities = candidates(logits, options, history)
    result[ids] = probabilities
    return result


def draw(ids: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], generator: np.random.Generator) -> int:
    """One of `ids` by inverse transform: the first whose cumulative probability exceeds a uniform number."""
    cumulative = np.cumsum(probabilities)
    point = generator.random() * cumulative[-1]
    return int(ids[min(int(np.searchsorted(cumulative, point, side="right")), len(ids) - 1)])


def candidates(
    logits: npt.NDArray[np.float32], options: SamplingOptions, history: Sequence[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """What `sample` draws from: the tokens that survive every filter, int64 [k] ascending, and float64 [k], sum 1.

    One token when greedy. A vocabulary has 50 000 to 260 000 tokens of which a few matter, so each filter first narrows
    the field by comparisons, and exponentials in double precision are taken of the rest. See `sample` for the rest.
    """
    logits = _penalised(logits, options.repetition_penalty, history)
    best = _argmax(logits)
    if options.greedy:
        return np.array([best]), np.ones(1)
    highest = logits[best]
    if 0 < options.top_k < len(logits):
        ids = _largest(logits, options.top_k)
        ids = ids[logits[ids] >= np.partition(logits[ids], -options.top_k)[-options.top_k]]
    else:
        # All that is left out together weighs less than a random number's last bit.
        negligible = options.temperature * (np.log(len(logits)) + _RANDOM_BITS * np.log(2))
        ids = np.flatnonzero(logits >= highest - np.float32(negligible))
    if options.top_p < 1.0:
        ids = ids[_nucleus(logits[ids], options.temperature, options.top_p)]
    weights = _weights(logits[ids], options.temperature)
    if options.min_p > 0.0:
        kept = weights >= options.min_p  # the largest weight is 1
        ids, weights = ids[kept], weights[kept]
    return ids, weights / weights.sum()


def _weights(logits: npt.NDArray[np.float32], temperature: float) -> npt.NDArray[np.float64]:
    """Probabilities relative to the largest, which is 1: no temperature can make them overflow."""
    return np.exp((logits.astype(np.float64) - float(logits.max())) / temperature)


def _nucleus(logits: npt.NDArray[np.float32], temperature: float, top_p: float) -> npt.NDArray[np.intp]:
    """Ascending positions of the logits before which less than top_p of the mass lies, largest first.

    Equal logits rank by position. Only a head of the largest is sorted and weighed in double precision, and made
    larger until it holds the nucleus; the mass of the rest is summed from weights in single precision.
    """
    highest = logits.max()
    size = _NUCLEUS_GUESS
    while True:
        head = _largest(logits, size)
        weights = np.exp((logits[head].astype(np.float64) - float(highest)) / temperature)
        rest = 0.0
        if len(head) < len(logits):
            light = np.exp((logits - highest) / np.float32(temperature))
            light[head] = 0.0
            rest = float(light.sum(dtype=np.float64))
        order = np.argsort(-weights, kind="stable")
        mass = np.cumsum(weights[order])
        wanted = top_p * (mass[-1] + rest)
        if mass[-1] >= wanted or len(head) == len(logits):
            before = np.concatenate([[0.0], mass[:-1]])
            return np.sort(head[order[before < wanted]])
        size *= 8


def _largest(logits: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Ascending positions of at least the `count` largest logits, with all that tie with the smallest of them.

    Cheaper than partitioning them all: of the largest logit of each group, the `count` largest are no larger than
    the `count` largest of all, and there are few groups.
    """
    group = len(logits) // (2 * count)
    if group < 2:
        return np.arange(len(logits)) if count >= len(logits) else _at_least(logits, logits, count)
    whole = len(logits) // group * group
    return _at_least(logits, logits[:whole].reshape(-1, group).max(axis=1), count)


def _at_least(logits: npt.NDArray[np.float32], among: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Positions of the logits that reach the `count`-th largest of `among`."""
    return np.flatnonzero(logits >= np.partition(among, -count)[-count])


def _penalised(logits: npt.NDArray[np.float32], penalty: float, history: Sequence[int]) -> npt.NDArray[np.float32]:
    if penalty == 1.0 or len(history) == 0:
        return logits
    seen = np.asarray(history, dtype=np.int64)
    values = logits[seen]
    result = logits.copy()
    # A token that occurs twice in the history is written twice with the same value.
    result[seen] = np.where(values > 0, values / np.float32(penalty), values * np.float32(penalty))
    return result


def _argmax(logits: npt.NDArray[np.float32]) -> int:
    best = int(np.argmax(logits))  # the first NaN, when there is one
    if not np.isfinite(logits[best]):
        raise SessionError(
            "logits must be finite numbers",
            f"the largest of {logits.shape[-1]} logits is {logits[best]}",
            "check the bundle: edgekit verify BUNDLE, then edgekit parity BUNDLE",
        )
    return best


def _require(condition: bool, rule: str, value: object) -> None:
    if not condition:
        raise EdgekitError(rule, f"it is {value}")
