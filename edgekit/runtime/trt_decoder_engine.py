"""A decoder's TensorRT engine: what its profiles say of tokens."""

from __future__ import annotations

from typing import Any

from edgekit import contract
from edgekit.errors import BundleError
from edgekit.runtime.trt_engine import Profile, TrtEngine


class DecoderEngine(TrtEngine):
    """A TrtEngine whose profiles are ordered by how many new tokens they take, the fewest first.

    The tightest fit is the fastest.
    """

    def __init__(self, trt: Any, engine: Any, name: str, runtime: Any = None) -> None:
        """See TrtEngine. Raises BundleError where it has not the inputs of a decoder."""
        super().__init__(trt, engine, name, runtime)
        names = {tensor.name for tensor in self.inputs}
        if not {contract.INPUT_IDS, contract.ATTENTION_MASK} <= names:
            raise BundleError(
                "a decoder's inputs and outputs must be those that edgekit writes",
                f"{name}: it has {', '.join(sorted(names)) or 'no inputs'}",
                "build the engine again: edgekit build BUNDLE --device DEVICE",
            )
        self.profiles.sort(key=_new)

    @property
    def most_tokens(self) -> int:
        """Most tokens in all that every profile serves."""
        return min(profile.sizes(contract.ATTENTION_MASK, 1)[1] for profile in self.profiles)

    @property
    def longest_piece(self) -> int:
        """Most new tokens at once that any profile takes."""
        return max(_new(profile) for profile in self.profiles)

    def most_new(self, batch: int) -> int:
        """Most new tokens at once for a batch. Raises SessionError where no profile serves the batch."""
        self.check_batch(batch, contract.INPUT_IDS)
        return max(_new(profile) for profile in self.profiles if batch <= profile.sizes(contract.INPUT_IDS, 0)[1])


def _new(profile: Profile) -> int:
    """Most new tokens at once."""
    return profile.sizes(contract.INPUT_IDS, 1)[1]
