"""The two ways in which drafting and verifying take a random number.

Everything else is arithmetic, so that whoever replaces these two can enumerate every outcome with its probability.
"""

from __future__ import annotations

import numpy as np

from edgekit.runtime.drafting.interface import Distribution
from edgekit.runtime.sampling import draw


def choose(distribution: Distribution, generator: np.random.Generator) -> int:
    """One of the ids, as `sampling.sample` draws it: the generator is advanced by one number."""
    return draw(distribution.ids, distribution.probabilities, generator)


def happens(probability: float, generator: np.random.Generator) -> bool:
    """True with this probability (1 and more: always); the generator is advanced by one number."""
    return bool(generator.random() < probability)
