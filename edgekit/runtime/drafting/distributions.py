"""Distributions over few tokens: of the model, of a drafter, and what they say of one token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekit.runtime.drafting import chance
from edgekit.runtime.drafting.interface import Distribution
from edgekit.runtime.sampling import SamplingOptions, candidates


def target(logits: npt.NDArray[np.float32], options: SamplingOptions, history: Sequence[int]) -> Distribution:
    """What `sampling.sample` draws from: logits float32 [V] after every filter; one token when greedy.

    Args:
        history: every token so far; only the repetition penalty reads it.

    Raises:
        SessionError: the logits hold no finite maximum.
    """
    return _positive(*candidates(logits, options, history))


def filtered(probabilities: npt.NDArray[np.floating], options: SamplingOptions) -> Distribution:
    """A drafter's probabilities [D] after temperature, top-k, top-p and min-p, with their logarithms as logits.

    The ids are places 0..D-1. The repetition penalty is left out: it acts on a model's logits, which probabilities do
    not tell (they lack a constant).

    Raises:
        SessionError: the probabilities hold no positive, finite maximum.
    """
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities).astype(np.float32)
    return _positive(*candidates(logits, options, history=()))


def unfiltered(probabilities: npt.NDArray[np.floating]) -> Distribution:
    """Probabilities [D] as they are, scaled to sum 1 in double precision."""
    ids = np.flatnonzero(probabilities)
    weights = probabilities[ids].astype(np.float64)
    return Distribution(ids, weights / weights.sum())


def probability_of(distribution: Distribution, token: int) -> float:
    """What the distribution gives a token; 0 for one that it does not hold."""
    place = int(np.searchsorted(distribution.ids, token))
    held = place < len(distribution.ids) and distribution.ids[place] == token
    return float(distribution.probabilities[place]) if held else 0.0


def drafted(distribution: Distribution, generator: np.random.Generator) -> tuple[int, Distribution | None]:
    """A token and what a Proposal says it was drawn from: None, and no random number, where there was no choice."""
    if len(distribution.ids) == 1:
        return int(distribution.ids[0]), None
    return chance.choose(distribution, generator), distribution


def _positive(ids: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> Distribution:
    """Without tokens whose probability is too small for a number: top-k keeps k however unlikely they are."""
    if not probabilities.all():
        kept = probabilities > 0
        ids, probabilities = ids[kept], probabilities[kept]
    return Distribution(ids, probabilities)
