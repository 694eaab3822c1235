"""W ≈ Q_b(W) + low rank + sparse: a base of few bits, corrected where the activations notice.

Alternating: the base rounds what the correction leaves, by GPTQ (arXiv 2210.17323) and then coordinate descent; the
correction is fitted to what the base leaves, in the metric (CALDERA, arXiv 2405.18886, algorithm 1). Its sparse part
takes the weights that are largest for the activations out of the base before that is rounded (SpQR, arXiv 2306.03078):
codes then have no outliers to span, and their error, shaped to cancel, shows no single weights worth mending. That is
also why the bases that serve best have large blocks: what a scale for every 64 inputs costs is worth more as single
weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from edgekit.compress.gptq import gptq_quantize
from edgekit.compress.refine import refined
from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.correction import (
    VALUES,
    Begun,
    Split,
    begun,
    best_of_rounds,
    dense,
    leading,
    splits,
    stored_factors,
    stored_sparse,
)
from edgekit.compress.saten.pieces import Base, base, base_bytes
from edgekit.compress.saten.request import Request, Settings, too_small
from edgekit.compress.saten.residual import scaled_mask
from edgekit.compress.saten.sparse_format import sparse_bytes

READS = ("sparsity", "factors", "order", "base_bits", "symmetric")

#: Shares of what the base leaves that are tried for the sparse part, the first with every base.
SHARES = (0.5, 0.0, 1.0)

#: How many of the largest bases that fit are tried; smaller ones, which leave more to the correction, did worse.
BASES = 3

#: Sweeps of coordinate descent over a new base, and over one that is fitted again.
FIRST, AGAIN = 1, 2


def fit(request: Request) -> CompressedMatrix:
    """The best base, split and round."""
    sizes = base_sizes(request)
    part = asked_bytes(request.shape, request.settings)
    fitting = sorted((size for size in sizes if size[0] + part <= request.budget), reverse=True)
    tried = [(_begun(request, base, SHARES[:1]), base) for base in fitting[:BASES]]
    found = [each for several, _ in tried for each in several]
    leader = leading(found)
    if leader and request.settings.sparsity is None:
        base = next(base for several, base in tried if leader in several)
        found += _begun(request, base, SHARES[1:])
    best = best_of_rounds(found)
    if best is None:
        raise too_small(request, "a base with this correction", min(sizes)[0] + part)
    return best


def _begun(request: Request, base: tuple[int, int, int], shares: tuple[float, ...]) -> list[Begun]:
    """What (bytes, bits, block) of a base give with several shares."""
    size, bits, block = base
    return begun(_rounds(request, bits, block, split) for split in splits(request, request.budget - size, shares))


def asked_bytes(shape: tuple[int, int], settings: Settings) -> int:
    """What the sparse part takes that was asked for; 0 where that is left to the method."""
    if settings.sparsity is None:
        return 0
    return sparse_bytes(shape, settings.sparsity, settings.values or VALUES, settings.block)


def base_sizes(request: Request) -> list[tuple[int, int, int]]:
    """(bytes, bits, block) of every base that may be used."""
    return possible_bases(request.shape, request.settings)


def possible_bases(shape: tuple[int, int], settings: Settings) -> list[tuple[int, int, int]]:
    """The same for a matrix [N, K] of that shape."""
    rows, inputs = shape
    blocks = [block for block in settings.base_blocks if inputs % block == 0] or [min(settings.base_blocks)]
    return [(base_bytes(rows, inputs, bits, block), bits, block) for bits in settings.base_bits for block in blocks]


def rounded(request: Request, weight: Tensor, bits: int, block: int, sweeps: int = 0) -> Base:
    """A matrix [N, K] rounded by GPTQ, then by sweeps of coordinate descent."""
    symmetric = request.settings.symmetric
    values = weight.float().numpy()
    metric = request.metric
    found = gptq_quantize(
        values, metric.moments, bits, block, symmetric=symmetric, positive=symmetric, upper=metric.upper
    )
    return refitted(request, base(found), weight, sweeps)


def refitted(request: Request, old: Base, weight: Tensor, sweeps: int) -> Base:
    """A base brought nearer to a matrix [N, K]."""
    symmetric, moments = request.settings.symmetric, request.metric.moments
    return base(refined(old.quantized, weight.float().numpy(), moments, sweeps, positive=symmetric)) if sweeps else old


def _rounds(request: Request, bits: int, block: int, split: Split) -> Iterator[CompressedMatrix]:
    weight = request.weight.double()
    mask = scaled_mask(weight, split.sparsity, request.metric)
    kept, low = weight * mask, dense(None, weight)
    low_bit = rounded(request, weight - kept, bits, block, FIRST)
    for number in range(request.settings.rounds):
        if number:
            low_bit = refitted(request, low_bit, weight - low - kept, AGAIN)
        rest = weight - dense(low_bit, weight)
        factors = stored_factors(request, rest - kept, split.for_factors)
        low = dense(factors, weight)
        part = stored_sparse(request, rest - low, mask, split.sparsity)
        kept = dense(part, weight)
        pieces = [piece for piece in (low_bit, factors, part) if piece is not None]
        yield request.made("saten-augmented", pieces)
