"""How long products are expected to take with matrices that are only planned, beside plain codes of 4 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgekit.compress.layerwise.options import CODES
from edgekit.compress.layerwise.plan import Entry, settings_from
from edgekit.compress.saten.correction import FACTORS
from edgekit.compress.saten.cost import int4_seconds, planned_seconds
from edgekit.compress.saten.factors import largest_rank
from edgekit.compress.saten.methods.saten_augmented import possible_bases
from edgekit.compress.saten.request import Settings
from edgekit.compress.saten.sparse import Nothing

Shape = tuple[int, int]
#: Bytes of a single weight of 8 bits and its column, scale not counted.
_ENTRY_BYTES = 3


def expected_seconds(method: str, shape: Shape, nbytes: int, settings: Settings) -> float | None:
    """Of one token's product with what a method is likely to make: the largest base that fits, and a correction that
    is half low rank, half single weights. None where codes do not decide, and only a fit tells.
    """
    if method not in CODES:
        return None
    size, bits, block = max((base for base in possible_bases(shape, settings) if base[0] <= nbytes), default=(0, 0, 0))
    if not bits:
        return None
    left = nbytes - size if method == "saten-augmented" else 0
    for_pair = left if isinstance(settings.sparsity, Nothing) else left // 2
    rank = largest_rank(shape, for_pair, settings.factors or FACTORS, settings.block)
    return planned_seconds(shape, bits, block, rank, (left - for_pair) // _ENTRY_BYTES)


def with_times(entries: Sequence[Entry], matrices: Mapping[str, Shape], settings: Mapping[str, Any]) -> list[Entry]:
    """The entries with what they are expected to take, in microseconds, where that is known."""
    found = []
    for entry in entries:
        shape = matrices[entry.matrix]
        own = expected_seconds(entry.method, shape, entry.nbytes, settings_from({**settings, **entry.settings}))
        times = None if own is None else (round(1e6 * own, 2), round(1e6 * int4_seconds(*shape), 2))
        found.append(replace(entry, microseconds=times))
    return found
