"""Every outcome of drafting and verifying with its exact probability, on vocabularies small enough for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from edgekit.runtime.drafting import chance
from edgekit.runtime.drafting.interface import Distribution, DraftContext, Proposal
from edgekit.runtime.drafting.verify import verify
from edgekit.runtime.sampling import SamplingOptions, distribution

PROMPT = (1, 3)


class Branch:
    """In place of a random generator: follows a path of outcomes, then the first of each choice, and notes the rest."""

    def __init__(self, path: tuple[int, ...], noise: np.ndarray | None = None) -> None:
        self.path = path
        self.noise = noise
        self.taken: list[int] = []
        self.others: list[tuple[int, ...]] = []
        self.probability = 1.0

    def one_of(self, values: Sequence[Any], probabilities: Sequence[float]) -> Any:
        place = len(self.taken)
        if place < len(self.path):
            index = self.path[place]
        else:
            index, *rest = (i for i, p in enumerate(probabilities) if p > 0)
            self.others += [(*self.taken, i) for i in rest]
        self.taken.append(index)
        self.probability *= probabilities[index]
        return values[index]

    def gumbel(self, size: tuple[int, ...]) -> np.ndarray:
        assert self.noise is not None, "no noise was wanted here"
        return self.noise.reshape(size)


def outcomes(run: Callable[[Any], Any], noise: np.ndarray | None = None) -> Iterator[tuple[float, Any]]:
    """Everything that `run` can return, given a Branch for a generator, with its probability."""
    paths: list[tuple[int, ...]] = [()]
    while paths:
        branch = Branch(paths.pop(), noise)
        result = run(branch)
        yield branch.probability, result
        paths += branch.others


def enumerate_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the two places that take random numbers ask the Branch instead."""

    def choose(found: Distribution, branch: Branch) -> int:
        return int(branch.one_of(found.ids, found.probabilities))

    def happens(probability: float, branch: Branch) -> bool:
        return bool(branch.one_of([True, False], [min(1.0, probability), max(0.0, 1.0 - probability)]))

    monkeypatch.setattr(chance, "choose", choose)
    monkeypatch.setattr(chance, "happens", happens)


class Target:
    """A model whose logits depend on every token before."""

    def __init__(self, vocab: int, seed: int = 0, scale: float = 1.5) -> None:
        self.vocab, self.seed, self.scale = vocab, seed, scale
        self._logits: dict[tuple[int, ...], np.ndarray] = {}
        self._next: dict[tuple[tuple[int, ...], SamplingOptions], np.ndarray] = {}

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        key = tuple(tokens)
        if key not in self._logits:
            rng = np.random.default_rng([self.seed, *tokens])
            self._logits[key] = (rng.standard_normal(self.vocab) * self.scale).astype(np.float32)
        return self._logits[key]

    def rows(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits [len(tokens) + 1, V] of a block after the prompt."""
        return np.stack([self.logits([*PROMPT, *tokens[:i]]) for i in range(len(tokens) + 1)])

    def joint(self, length: int, options: SamplingOptions) -> np.ndarray:
        """What plain decoding gives: probabilities of the next `length` tokens, [V] * length."""
        result = np.zeros((self.vocab,) * length)
        for tokens in itertools.product(range(self.vocab), repeat=length):
            result[tokens] = np.prod([self.next(tokens[:i], options)[tokens[i]] for i in range(length)])
        return result

    def next(self, tokens: Sequence[int], options: SamplingOptions) -> np.ndarray:
        """Probabilities [V] after the prompt and these tokens."""
        key = (tuple(tokens), options)
        if key not in self._next:
            history = [*PROMPT, *tokens]
            self._next[key] = distribution(self.logits(history), options, history)
        return self._next[key]


def context(options: SamplingOptions, generator: Any, tokens: Sequence[int] = PROMPT) -> DraftContext:
    return DraftContext(tokens, np.zeros(2, np.float32), options, generator)


def drafted_joint(
    target: Target,
    propose: Callable[[Any], Proposal],
    length: int,
    options: SamplingOptions,
    noise: np.ndarray | None = None,
) -> np.ndarray:
    """What comes out of one round of drafting and verifying, completed by plain decoding to `length` tokens.

    Blocks differ in length, so that each is filled up with what the model says next; equal to `Target.joint` exactly
    when every token of every block is distributed as the model has it.
    """

    def run(branch: Any) -> tuple[int, ...]:
        proposal = propose(branch)
        verdict = verify(target.rows(proposal.tokens), proposal, options, PROMPT, branch)
        return (*proposal.tokens[: verdict.accepted], verdict.token)

    result = np.zeros((target.vocab,) * length)
    for probability, block in outcomes(run, noise):
        assert len(block) <= length
        completed = np.array(probability)
        for place in range(len(block), length):
            completed = np.stack(
                [
                    share * target.next((*block, *rest), options)
                    for rest, share in np.ndenumerate(completed.reshape((target.vocab,) * (place - len(block))))
                ]
            )
        result[block] += completed.reshape((target.vocab,) * (length - len(block)))
    return result
