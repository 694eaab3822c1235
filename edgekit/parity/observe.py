"""Running a text through a decoder in pieces, and comparing two such runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.parity.compare import Difference, difference, positions_first
from edgekit.parity.report import Stage
from edgekit.parity.tolerance import GraphTolerance
from edgekit.runtime.session import Features, Logits, Tokens

Array = npt.NDArray[Any]


class Subject(Protocol):
    """A decoder that shows its cache."""

    @property
    def features(self) -> Features | None: ...
    def reset(self) -> None: ...
    def forward(self, tokens: Tokens, keep: int = 1) -> Logits: ...
    def caches(self) -> list[dict[str, Array]]: ...


@dataclass(frozen=True)
class Observation:
    """What a decoder made of one text of T tokens.

    Attributes:
        logits: float32 [T, vocabulary].
        caches: for each layer its cache tensors for T tokens, by suffix.
        hidden: the residual stream [T, hidden] after the embedding and each layer; empty for a decoder without taps.
        features: what draft heads read, [T, features]; None for a decoder without.
    """

    logits: Array
    caches: list[dict[str, Array]]
    hidden: list[Array]
    features: Array | None = None

    def stages(self) -> list[tuple[str, Array]]:
        """Every tensor as [T, features] with its name, in the order in which data flows."""
        named: list[tuple[str, Array]] = []
        for layer, cache in enumerate(self.caches):
            named += [(f"hidden.{layer}", self.hidden[layer])] if self.hidden else []
            named += [
                (f"cache.{layer}.{suffix}", positions_first(tensor, contract.SEQUENCE_AXES[suffix]))
                for suffix, tensor in cache.items()
            ]
        named += [(f"hidden.{len(self.caches)}", self.hidden[-1])] if self.hidden else []
        named += [("features", self.features)] if self.features is not None else []
        return [*named, ("logits", self.logits)]


def observe(subject: Subject, tokens: Sequence[int], pieces: Sequence[int]) -> Observation:
    """Process a text from an empty cache.

    Args:
        pieces: how many tokens go into each forward; together they are all tokens.
    """
    if sum(pieces) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens cannot be processed as {sum(pieces)}")
    subject.reset()
    logits, hidden, features, start = [], [], [], 0
    for piece in pieces:
        logits.append(subject.forward(np.array([tokens[start : start + piece]], np.int64), keep=0)[0])
        hidden.append([state[0] for state in getattr(subject, "hidden", [])])
        if subject.features is not None:
            features.append(subject.features[0])
        start += piece
    states = [np.concatenate(pieces_of_state) for pieces_of_state in zip(*hidden, strict=True)]
    read = np.concatenate(features) if features else None
    return Observation(np.concatenate(logits), subject.caches(), states, read)


#: Factors that a rule has bound as keys and values hold the same numbers in the same order.
_ALSO = {contract.KEY: contract.KEY_B, contract.VALUE: contract.VALUE_B}


def _same(stages: dict[str, Array], name: str) -> Array:
    """The stage of that name, or of the name that the tensor has in the reference."""
    stem, _, suffix = name.rpartition(".")
    return stages[name] if name in stages else stages[f"{stem}.{_ALSO[suffix]}"]


class Comparison:
    """Collects the worst difference of each stage over several texts."""

    def __init__(self) -> None:
        self._tolerances: dict[str, GraphTolerance] = {}
        self._worst: dict[tuple[str, str], Difference] = {}

    def add(self, mode: str, tolerance: GraphTolerance, found: Observation, reference: Observation) -> None:
        """Compare one text's run with the reference's."""
        self._tolerances[mode] = tolerance
        expected = dict(reference.stages())
        for name, tensor in found.stages():
            key = (mode, name)
            self._worst[key] = difference(tensor, _same(expected, name)).worst(self._worst.get(key, Difference()))

    def stages(self) -> tuple[Stage, ...]:
        """All stages, mode by mode in the order of their first text."""
        return tuple(
            Stage(mode, name, worst, tolerance.of(name))
            for mode, tolerance in self._tolerances.items()
            for (own, name), worst in self._worst.items()
            if own == mode
        )
