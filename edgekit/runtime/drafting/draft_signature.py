"""What the inputs and outputs of a draft graph say of it, whichever engine runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.contract import TensorSignature
from edgekit.errors import BundleError

#: Name, dtype and number of axes of everything that goes in and comes out; the noise only where it is needed.
_INPUTS = {
    contract.DRAFT_FEATURES: ("float32", 2),
    contract.DRAFT_TOKEN: ("int64", 1),
    contract.DRAFT_NOISE: ("float32", 2),
}
_OUTPUTS = {contract.DRAFT_LOG_WEIGHTS: ("float32", 2), contract.DRAFT_PROBABILITIES: ("float32", 4)}
#: The same of a graph that sees a window.
_SEEING_INPUTS = {
    **_INPUTS,
    contract.DRAFT_FEATURES: ("float32", 3),
    contract.DRAFT_TOKEN: ("int64", 2),
    contract.DRAFT_PAST: ("float32", 3),
}
_SEEING_OUTPUTS = {**_OUTPUTS, contract.DRAFT_PRESENT: ("float32", 3)}


@dataclass(frozen=True)
class DraftSizes:
    """F features, n tokens, r components in all, c computed, D draft vocabulary; W positions seen, N kept of each."""

    features: int
    tokens: int
    rank: int
    components: int
    drafted: int
    window: int = 0
    kept: int = 0

    @property
    def noisy(self) -> bool:
        """Whether it takes noise."""
        return self.components < self.rank


def draft_sizes(
    inputs: Sequence[TensorSignature],
    outputs: Sequence[TensorSignature],
    vocabulary: npt.NDArray[np.int64],
    *,
    graph: str,
    next_step: str,
) -> DraftSizes:
    """The sizes that a draft graph's inputs and outputs imply; sizes that vary are texts or negative.

    Args:
        vocabulary: ids of the tokens that can be drafted, int64 [D], ascending.
        graph: its name, and `next_step` what makes a right one: for messages.

    Raises:
        BundleError: they are not those of edgekit.contract, or not of this vocabulary.
    """

    def refusal(fact: str) -> BundleError:
        return BundleError(
            "a draft graph has the inputs and outputs of edgekit.contract", f"{graph}: {fact}", next_step
        )

    def checked(
        found: Sequence[TensorSignature], wanted: dict[str, tuple[str, int]], optional: str = ""
    ) -> dict[str, TensorSignature]:
        tensors = {tensor.name: tensor for tensor in found}
        kinds = {name: (tensor.dtype, len(tensor.shape)) for name, tensor in tensors.items()}
        if kinds != {name: kind for name, kind in wanted.items() if name != optional or name in kinds}:
            raise refusal(f"it has {kinds} instead of {wanted}")
        return tensors

    def size(tensor: TensorSignature, axis: int) -> int:
        found = tensor.shape[axis]
        if not isinstance(found, int) or found < 1:
            raise refusal(f"axis {axis} of its {tensor.name} is {found}, not a fixed size")
        return found

    seeing = any(tensor.name == contract.DRAFT_PAST for tensor in inputs)
    given = checked(inputs, _SEEING_INPUTS if seeing else _INPUTS, optional=contract.DRAFT_NOISE)
    made = checked(outputs, _SEEING_OUTPUTS if seeing else _OUTPUTS)
    tokens, components, drafted = (size(made[contract.DRAFT_PROBABILITIES], i) for i in (1, 2, 3))
    noise = given.get(contract.DRAFT_NOISE)
    rank = components if noise is None else size(noise, 1)
    if noise is not None and rank <= components:
        raise refusal(f"it takes noise for {rank} components and computes {components}")
    if vocabulary.shape != (drafted,) or bool((np.diff(vocabulary) <= 0).any()):
        raise refusal(f"it drafts {drafted} tokens, and its vocabulary is not as many ascending ids")
    features = given[contract.DRAFT_FEATURES]
    window, kept = (size(given[contract.DRAFT_PAST], axis) for axis in (1, 2)) if seeing else (0, 0)
    if seeing and (window, kept) != tuple(size(made[contract.DRAFT_PRESENT], axis) for axis in (1, 2)):
        raise refusal(f"it takes {window} kept positions of {kept} numbers and gives others")
    return DraftSizes(size(features, len(features.shape) - 1), tokens, rank, components, drafted, window, kept)
