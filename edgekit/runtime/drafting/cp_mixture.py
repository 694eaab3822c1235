"""The joint distribution of the next n tokens as a mixture of c products (a CP decomposition, arXiv 2410.17765).

    q(x_1..x_n) = sum_alpha w_alpha prod_s p_alpha^(s)(x_s)
    q(x_s | x_<s) = sum_alpha pi_alpha^(s) p_alpha^(s)(x_s);   pi^(1) = w;   pi^(s+1) ~ pi^(s) p^(s)(x_s)

log_weights [c] are those of w, probabilities [n, c, D] the p: each row over D sums to 1. Weights and what is made of
few numbers are float64; what runs over D keeps the precision of p. Tokens are places 0..D-1 of the draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edgekit.runtime.drafting import chance
from edgekit.runtime.drafting.distributions import drafted, filtered, unfiltered
from edgekit.runtime.drafting.interface import Distribution
from edgekit.runtime.sampling import SamplingOptions

Vector = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]


def weights(log_weights: Floats) -> Vector:
    """w, float64 [c], sum 1."""
    relative: Vector = np.exp(log_weights.astype(np.float64) - float(log_weights.max()))
    total: np.float64 = relative.sum()
    return relative / total


def mixture(posterior: Vector, probabilities: Floats) -> Floats:
    """sum_alpha pi_alpha p_alpha, [D], from pi [c] and p of one position, [c, D]."""
    mixed: Floats = posterior.astype(probabilities.dtype) @ probabilities
    return mixed


def updated(posterior: Vector, given: Floats) -> Vector:
    """pi after a token, float64 [c], from pi before it and what each component gave the token, [c].

    A token that no component holds possible tells nothing of them: pi stays.
    """
    unscaled = posterior * given
    total = unscaled.sum()
    return unscaled / total if total > 0.0 else posterior


def conditionals(log_weights: Floats, probabilities: Floats, tokens: Sequence[int]) -> Iterator[Floats]:
    """q(. | x_<s), [D], for s = 1, 2, ... along the tokens: one more than there are tokens, at most n."""
    posterior = weights(log_weights)
    for s, position in enumerate(probabilities[: len(tokens) + 1]):
        yield mixture(posterior, position)
        if s < len(tokens):
            posterior = updated(posterior, position[:, tokens[s]])


def joint(log_weights: Floats, probabilities: Floats, tokens: Sequence[int]) -> float:
    """q(x_1..x_m) of the first m <= n tokens."""
    given = probabilities[np.arange(len(tokens)), :, list(tokens)].astype(np.float64)  # [m, c]
    return float(weights(log_weights) @ given.prod(axis=0))


def ancestral_draft(
    log_weights: Floats, probabilities: Floats, generator: np.random.Generator
) -> tuple[int, tuple[int, ...]]:
    """A component drawn from w, and n tokens drawn from it, each on its own: a draw from the joint.

    To be verified with the conditionals along the tokens, or with the rows of the component.
    """
    component = chance.choose(unfiltered(weights(log_weights)), generator)
    return component, tuple(chance.choose(unfiltered(p[component]), generator) for p in probabilities)


def sequential_draft(
    log_weights: Floats, probabilities: Floats, options: SamplingOptions, generator: np.random.Generator
) -> list[tuple[int, Distribution | None]]:
    """n tokens, each from the filtered conditional after those before it (greedy: its likeliest); see `drafted`.

    Raises:
        SessionError: the probabilities hold no positive, finite maximum.
    """
    found = []
    posterior = weights(log_weights)
    for position in probabilities:
        token, q = drafted(filtered(mixture(posterior, position), options), generator)
        found.append((token, q))
        posterior = updated(posterior, position[:, token])
    return found


def component_draft(
    log_weights: Floats, probabilities: Floats, options: SamplingOptions, generator: np.random.Generator
) -> list[tuple[int, Distribution | None]]:
    """A component drawn from w (greedy: the likeliest), and n tokens from what it says, filtered; see `drafted`.

    Raises:
        SessionError: the probabilities hold no positive, finite maximum.
    """
    prior = weights(log_weights)
    component = int(prior.argmax()) if options.greedy else chance.choose(unfiltered(prior), generator)
    return [drafted(filtered(position[component], options), generator) for position in probabilities]
