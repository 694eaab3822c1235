"""Rows to train and to measure on: windows of neighbouring positions of a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edgekit.draft.features import FeatureCache
from edgekit.draft.loss import Targets
from edgekit.layers.norm import RMSNorm

#: Neighbouring positions of a cached text that are drawn together: they share the model's distributions.
WINDOW = 64


@dataclass(frozen=True)
class Frozen:
    """What of the model the heads are trained against.

    states: [V, S], what the model makes of each token by itself, see `token_states`; unembedding: [D, d], rows of its
    head; norm: its last. vocabulary: int64 [D], ascending.
    """

    states: Tensor
    unembedding: Tensor
    norm: RMSNorm
    vocabulary: Tensor


class RowStates(NamedTuple):
    """What the model says along a text of L tokens: see `FeatureCache`. Tensors on one device.

    tokens: [L]; features: [L, F]; totals: float32 [L]; greedy: [L].
    """

    tokens: Tensor
    features: Tensor
    totals: Tensor
    greedy: Tensor


@dataclass(frozen=True)
class Window:
    """One window of W positions, and the C before it that are only looked back at.

    features: float32 [C + W, F]; known: int64 [C + W], the token after each position; before: C; missing: how many of
    those C the text does not have, which lie first. targets: of the n tokens after the known ones of the W positions;
    greedy: int64 [W, n], the model's likeliest token at each target; text: int64 [W, n], the tokens themselves.
    """

    features: Tensor
    known: Tensor
    before: int
    missing: int
    targets: Targets
    greedy: Tensor
    text: Tensor


class WindowSource(Protocol):
    """Gives windows of texts.

    tokens: int [R, L]. size: W, positions of a window.
    """

    @property
    def tokens(self) -> npt.NDArray[np.int32]: ...

    @property
    def size(self) -> int: ...

    def windows(
        self, frozen: Frozen, places: npt.NDArray[np.int64], tokens: int, decay: float, before: int
    ) -> Iterable[Window]:
        """The windows at (row, start) [w, 2]; see `window_of`."""


class CachedRows:
    """Implements WindowSource from a feature cache."""

    size = WINDOW

    def __init__(self, cache: FeatureCache) -> None:
        self.tokens = cache.tokens
        self._cache = cache

    def windows(
        self, frozen: Frozen, places: npt.NDArray[np.int64], tokens: int, decay: float, before: int
    ) -> Iterable[Window]:
        """See WindowSource."""
        for row, start in places.tolist():
            arrays = (self.tokens, self._cache.features, self._cache.totals, self._cache.greedy)
            states = RowStates(*(torch.from_numpy(np.asarray(array[row])) for array in arrays))
            yield window_of(states, frozen, start, self.size, tokens, decay, before)


@torch.no_grad()
def window_of(
    states: RowStates, frozen: Frozen, start: int, size: int, tokens: int, decay: float, before: int
) -> Window:
    """The window of `size` positions from `start` of a text.

    Args:
        tokens: n.
        decay: weight of each drafted token relative to the one before it. Tokens after one outside the draft
            vocabulary have no weight, since a draft never gets there.
        before: C, positions to look back at.
    """
    stop, missing = start + size + tokens, max(0, before - start)
    width = frozen.unembedding.shape[1]
    features = states.features[start - before + missing : stop].float()
    final = frozen.norm(features[before - missing :, -width:])
    logits = functional.linear(final.to(frozen.unembedding.dtype), frozen.unembedding).float()
    model = (logits - states.totals[start:stop, None]).exp()
    ids = states.tokens[start - before + missing : stop + 1].long()
    greedy = states.greedy[start:stop].long()

    def following(values: Tensor, first: int) -> Tensor:
        """values[i + first + s] at [i, s]; a view."""
        return values[first : first + size + tokens - 1].unfold(0, tokens, 1)

    text = following(ids[before - missing :], 2)
    place = torch.searchsorted(frozen.vocabulary, text.contiguous()).clamp(max=len(frozen.vocabulary) - 1)
    known = frozen.vocabulary[place] == text
    reached = torch.cat([torch.ones_like(place[:, :1], dtype=torch.float32), known[:, :-1].float().cumprod(1)], 1)
    weight = reached * decay ** torch.arange(tokens, device=reached.device)
    seen = before - missing + size
    return Window(
        functional.pad(features[:seen], (0, 0, missing, 0)),
        functional.pad(ids[1 : seen + 1], (missing, 0)),
        before,
        missing,
        Targets(torch.where(known, place, -1), following(model, 1).transpose(1, 2), weight),
        following(greedy, 1),
        text,
    )


def stacked(windows: Sequence[Window], states: Tensor) -> tuple[Tensor, Tensor, int, Tensor | None]:
    """What a Student takes of G windows: features [G, T, F], states [G, T, S], before, and missing [G] or None."""
    known = torch.stack([window.known for window in windows])
    missing = torch.tensor([window.missing for window in windows])
    features = torch.stack([window.features for window in windows])
    return features, states[known], windows[0].before, missing if bool(missing.any()) else None


def places(rows: npt.NDArray[np.int64], length: int, tokens: int, skip: int, size: int) -> npt.NDArray[np.int64]:
    """All windows (row, start) of those rows of `length` tokens, int64 [w, 2], after the first `skip` tokens."""
    starts = np.arange(skip, length - size - tokens - 1, size)
    return np.stack([np.repeat(rows, len(starts)), np.tile(starts, len(rows))], 1)
