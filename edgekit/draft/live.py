"""Windows of texts whose hidden states are computed when they are wanted: on a GPU sooner than a disk gives them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from edgekit.draft.batches import Frozen, RowStates, Window, window_of
from edgekit.draft.features import states_along
from edgekit.heal.full_attention import head_of
from edgekit.layers.decoder import Decoder

_TEXTS_AT_ONCE = 16


class LiveRows:
    """Implements WindowSource on the model's device. A window is a whole text, what it cannot hold left out."""

    def __init__(
        self, model: Decoder, tokens: npt.NDArray[np.int64], layers: tuple[int, ...], skip: int, drafted: int
    ) -> None:
        """
        Args:
            tokens: [R, L].
            layers: after how many layers the residual stream is read.
            skip: first tokens of each text that say nothing.
            drafted: n.
        """
        self.tokens = tokens.astype(np.int32)
        self.size = tokens.shape[1] - skip - drafted - 2
        self._model, self._layers = model, layers
        self._ids = torch.from_numpy(tokens).to(head_of(model).device)

    def windows(
        self, frozen: Frozen, places: npt.NDArray[np.int64], tokens: int, decay: float, before: int
    ) -> Iterable[Window]:
        """See WindowSource."""
        for first in range(0, len(places), _TEXTS_AT_ONCE):
            some = places[first : first + _TEXTS_AT_ONCE].tolist()
            ids = self._ids[[row for row, _ in some]]
            found = states_along(self._model, ids, self._layers)
            for index, (_, start) in enumerate(some):
                states = RowStates(ids[index], *(each[index] for each in found))
                yield window_of(states, frozen, start, self.size, tokens, decay, before)
