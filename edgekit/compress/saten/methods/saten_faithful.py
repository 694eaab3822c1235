"""Saten as published (arXiv 2505.14871, section 3): the tensor train first, then its residual's largest, once.

Everything in float16. The paper's ratio counts nonzeros without their positions; here they count.
"""

from __future__ import annotations

import torch

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.factors import train_within
from edgekit.compress.saten.methods.tt import ORDER, least_train_bytes
from edgekit.compress.saten.pieces import Piece
from edgekit.compress.saten.request import Request, too_small
from edgekit.compress.saten.sparse import Nothing, Unstructured
from edgekit.compress.saten.sparse_format import sparse, sparse_bytes
from edgekit.compress.saten.storage import FLOAT

READS = ("sparsity", "factors", "order")

#: The paper's.
SPARSITY = Unstructured(0.95)


def fit(request: Request) -> CompressedMatrix:
    """The sparse part takes what its pattern says, the train the rest of the budget."""
    settings = request.settings
    sparsity = settings.sparsity or SPARSITY
    factors, values, order = settings.factors or FLOAT, settings.values or FLOAT, settings.order or ORDER
    for_sparse = sparse_bytes(request.shape, sparsity, values, settings.block)
    train = train_within(request.weight, order, request.budget - for_sparse, factors, settings.block)
    if train is None:
        least = for_sparse + least_train_bytes(request, order, factors)
        raise too_small(request, f"a train with {sparsity.spelled()}", least)
    pieces: list[Piece] = [train]
    if not isinstance(sparsity, Nothing):
        residual = request.weight - torch.from_numpy(train.dense())
        pieces.append(sparse(residual, sparsity.mask(residual.abs()), sparsity, values, settings.block))
    return request.made("saten-faithful", pieces)
