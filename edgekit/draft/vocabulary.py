"""Which tokens can be drafted: the most frequent ones of a text. The others are never proposed, which costs no loss."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt


def frequent_tokens(
    counts: npt.NDArray[np.int64], size: int, always: Collection[int] = ()
) -> tuple[npt.NDArray[np.int64], float]:
    """The `size` most frequent tokens (all, when there are fewer), ascending, int64 [D]; and the share they cover.

    Args:
        counts: int64 [V].
        always: tokens that are in it whatever their count: those that end a text.
    """
    ranked = np.argsort(-counts, kind="stable")
    chosen = np.array(sorted(always), np.int64)
    rest = ranked[~np.isin(ranked, chosen)][: max(0, min(size, len(counts)) - len(chosen))]
    vocabulary = np.sort(np.concatenate([chosen, rest]))
    return vocabulary, float(counts[vocabulary].sum() / max(1, counts.sum()))
