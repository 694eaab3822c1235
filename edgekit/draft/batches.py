"""Rows to train and to measure on: windows of neighbouring positions out of a feature cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edgekit.draft.features import FeatureCache
from edgekit.draft.loss import Targets
from edgekit.layers.norm import RMSNorm

#: Neighbouring positions that are drawn together: they share the model's distributions.
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


@dataclass(frozen=True)
class Window:
    """One window of W positions.

    features: float32 [W, F]; known: int64 [W], the token after each position; targets: of the n tokens after that;
    greedy: int64 [W, n], the model's likeliest token at each target; text: int64 [W, n], the tokens themselves.
    """

    features: Tensor
    known: Tensor
    targets: Targets
    greedy: Tensor
    text: Tensor


def window_at(cache: FeatureCache, frozen: Frozen, row: int, start: int, tokens: int, decay: float) -> Window:
    """The window of WINDOW positions from `start` of a row of the cache; see `places`.

    Args:
        tokens: n.
        decay: weight of each drafted token relative to the one before it. Tokens after one outside the draft
            vocabulary have no weight, since a draft never gets there.
    """
    stop = start + WINDOW + tokens
    width = frozen.unembedding.shape[1]
    features = torch.from_numpy(np.asarray(cache.features[row, start:stop])).float()
    final = frozen.norm(features[:, -width:])
    logits = functional.linear(final.to(frozen.unembedding.dtype), frozen.unembedding).float()
    model = (logits - torch.from_numpy(np.asarray(cache.totals[row, start:stop]))[:, None]).exp()
    ids = torch.from_numpy(np.asarray(cache.tokens[row, start : stop + 1])).long()
    greedy = torch.from_numpy(np.asarray(cache.greedy[row, start:stop])).long()

    def following(values: Tensor, first: int) -> Tensor:
        """values[i + first + s] at [i, s]; a view."""
        return values[first : first + WINDOW + tokens - 1].unfold(0, tokens, 1)

    text = following(ids, 2)
    place = torch.searchsorted(frozen.vocabulary, text.contiguous()).clamp(max=len(frozen.vocabulary) - 1)
    known = frozen.vocabulary[place] == text
    reached = torch.cat([torch.ones(WINDOW, 1), known[:, :-1].float().cumprod(1)], 1)
    weight = reached * decay ** torch.arange(tokens)
    return Window(
        features[:WINDOW],
        ids[1 : WINDOW + 1],
        Targets(torch.where(known, place, -1), following(model, 1).transpose(1, 2), weight),
        following(greedy, 1),
        text,
    )


def places(rows: npt.NDArray[np.int64], length: int, tokens: int, skip: int) -> npt.NDArray[np.int64]:
    """All windows (row, start) of those rows of `length` tokens, int64 [w, 2], after the first `skip` tokens."""
    starts = np.arange(skip, length - WINDOW - tokens - 1, WINDOW)
    return np.stack([np.repeat(rows, len(starts)), np.tile(starts, len(rows))], 1)
