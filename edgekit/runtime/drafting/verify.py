"""Verifying drafted tokens so that what comes out is distributed as if the model alone had chosen (arXiv 2211.17192).

A token x that was drawn from q is accepted with probability min(1, p(x) / q(x)); otherwise one is drawn from
max(0, p - q) / Z. Both together give p, whatever q is: p and q are what is left after every filter.

For a token that was no chance (q is all mass on it) that is the same as drawing from p and keeping the token if it is
the one drawn. This is what is done then, with the very number that `sampling.sample` would take: with such drafts a
seed gives the text that it gives without.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.runtime.drafting import chance
from edgekit.runtime.drafting.distributions import probability_of, target
from edgekit.runtime.drafting.interface import Distribution, Proposal
from edgekit.runtime.sampling import SamplingOptions, sample


@dataclass(frozen=True)
class Verdict:
    """What becomes of a proposal.

    Attributes:
        accepted: how many of its tokens are kept, from the first.
        token: what the model chose after them.
    """

    accepted: int
    token: int


def acceptance(p: Distribution, q: Distribution, token: int) -> float:
    """Probability with which a token drawn from q is kept: min(1, p / q).

    Raises:
        ValueError: q gives the token no probability, so it was not drawn from q.
    """
    given = probability_of(q, token)
    if given <= 0.0:
        raise ValueError(f"token {token} was drafted, and its distribution gives it no probability")
    return min(1.0, probability_of(p, token) / given)


def residual(p: Distribution, q: Distribution) -> Distribution:
    """What to draw from once a token of q was refused: max(0, p - q) / Z.

    Where nothing is left, p and q are equal up to rounding and refusal was rounding too: then it is p.
    """
    dense = np.zeros(max(p.ids[-1], q.ids[-1]) + 1)
    dense[q.ids] = q.probabilities
    weights = np.maximum(p.probabilities - dense[p.ids], 0.0)
    total = weights.sum()
    if not total > 0.0:
        return p
    kept = weights > 0
    return Distribution(p.ids[kept], weights[kept] / total)


def verify(
    logits: npt.NDArray[np.float32],
    proposal: Proposal,
    options: SamplingOptions,
    history: Sequence[int],
    generator: np.random.Generator,
) -> Verdict:
    """Judge a proposal by the model's logits; without tokens it is `sampling.sample`.

    Args:
        logits: float32 [S, V], S = len(proposal.tokens) + 1: after the last token of the context and after each
            drafted one.
        history: every token of the context, prompt included; only the repetition penalty reads it.
        generator: advanced by a number for each token looked at; left alone when greedy.

    Raises:
        SessionError: logits hold no finite maximum.
        ValueError: the shapes do not fit, or a token was not drawn from its distribution.
    """
    if len(logits) != len(proposal.tokens) + 1 or len(proposal.distributions) != len(proposal.tokens):
        raise ValueError(
            f"{len(proposal.tokens)} tokens with {len(proposal.distributions)} distributions need "
            f"{len(proposal.tokens) + 1} rows of logits, not {len(logits)}"
        )
    # The penalty sees a drafted token once it is accepted.
    grown = array("q", history if options.repetition_penalty != 1.0 else ())
    for place, (token, q) in enumerate(zip(proposal.tokens, proposal.distributions, strict=True)):
        if options.greedy or q is None:
            chosen = _chosen(logits[place], options, grown, generator)
            if chosen != token:
                return Verdict(place, chosen)
        else:
            p = target(logits[place], options, grown)
            if not chance.happens(acceptance(p, q, token), generator):
                return Verdict(place, chance.choose(residual(p, q), generator))
        grown.append(token)
    return Verdict(len(proposal.tokens), _chosen(logits[-1], options, grown, generator))


def _chosen(
    logits: npt.NDArray[np.float32], options: SamplingOptions, history: Sequence[int], generator: np.random.Generator
) -> int:
    """What `sampling.sample` chooses, and with the same random number."""
    if options.greedy:
        return sample(logits, options, history, generator)
    return chance.choose(target(logits, options, history), generator)
