"""An error-driven tensor train, cores in float16."""

from __future__ import annotations

from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.factorisation import factorisation
from edgekit.compress.saten.factors import train_within
from edgekit.compress.saten.request import Request, too_small
from edgekit.compress.saten.storage import FLOAT, stored_bytes

READS = ("factors", "order")

ORDER = 4


def fit(request: Request) -> CompressedMatrix:
    """The smallest ε that the budget holds."""
    settings = request.settings
    dtype, order = settings.factors or FLOAT, settings.order or ORDER
    train = train_within(request.weight, order, request.budget, dtype, settings.block)
    if train is None:
        raise too_small(request, "a train of ranks 1", least_train_bytes(request, order, dtype))
    return request.made("tt", [train])


def least_train_bytes(request: Request, order: int, dtype: str) -> int:
    """Of a train whose ranks are 1."""
    outputs, inputs = request.shape
    modes = factorisation(inputs, outputs, order).modes
    return sum(stored_bytes(mode, dtype, request.settings.block) for mode in modes)
