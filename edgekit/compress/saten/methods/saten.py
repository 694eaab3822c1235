"""Saten in the metric of the activations: W ≈ low rank + sparse, alternating, factors and values quantised.

Each part is fitted to what the other, as stored, leaves (the alternation of OATS, arXiv 2409.13652, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.correction import (
    FACTORS,
    VALUES,
    Split,
    begun,
    best_of_rounds,
    dense,
    splits,
    stored_factors,
    stored_sparse,
)
from edgekit.compress.saten.factors import pair_bytes
from edgekit.compress.saten.request import Request, too_small
from edgekit.compress.saten.residual import pursued_mask
from edgekit.compress.saten.sparse import Nothing
from edgekit.compress.saten.sparse_format import sparse_bytes

READS = ("sparsity", "factors", "order")

#: Shares of the budget that are tried for the sparse part.
SHARES = (0.0, 0.15, 0.3, 0.5)


def fit(request: Request) -> CompressedMatrix:
    """The best split of the budget."""
    found = best_of_rounds(begun(_rounds(request, split) for split in splits(request, request.budget, SHARES)))
    if found is None:
        raise too_small(request, "low rank with this sparse part", _least(request))
    return found


def _rounds(request: Request, split: Split) -> Iterator[CompressedMatrix]:
    weight = request.weight.double()
    kept = dense(None, weight)
    for _ in range(request.settings.rounds):
        factors = stored_factors(request, weight - kept, split.for_factors)
        if factors is None:
            return
        rest = weight - dense(factors, weight)
        mask = pursued_mask(rest, kept, split.sparsity, request.metric)
        part = stored_sparse(request, rest, mask, split.sparsity)
        kept = dense(part, weight)
        yield request.made("saten", [factors, part] if part else [factors])
        if part is None:
            return


def _least(request: Request) -> int:
    """Of rank 1 and the sparse part that was asked for."""
    settings = request.settings
    pattern = settings.sparsity or Nothing()
    part = sparse_bytes(request.shape, pattern, settings.values or VALUES, settings.block)
    return part + pair_bytes(request.shape, 1, settings.factors or FACTORS, settings.block)
