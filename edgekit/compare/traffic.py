"""Bytes that a decoding step reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgekit.benchmark.run import weight_bytes
from edgekit.bundle import Bundle
from edgekit.report.onnx_graph import onnx_graph

#: Operators that read one row of a table for each token.
_LOOK_UP = ("Gather", "GatherBlockQuantized")
#: Names of position tables, of which attention reads a row.
_POSITIONS = "rope."


@dataclass(frozen=True)
class Traffic:
    """What one token reads from memory, in bytes.

    Attributes:
        exact: whether tables of which a token reads one row were left out; without the package onnx all weight files
            count.
    """

    weight_bytes: int
    cache_bytes: int
    exact: bool

    @property
    def bytes(self) -> int:
        """Both."""
        return self.weight_bytes + self.cache_bytes

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"bytes": self.bytes, **asdict(self)}


def traffic_of(bundle: Bundle, depth: float) -> Traffic:
    """A step with `depth` tokens in the cache, all of which it reads. Raises BundleError where the graph is damaged."""
    cache = int(depth * bundle.manifest.cache.bytes_per_token)
    read = _read_bytes(bundle)
    return Traffic(weight_bytes(bundle), cache, False) if read is None else Traffic(read, cache, True)


def _read_bytes(bundle: Bundle) -> int | None:
    """Of the data files, each stretch that something else than a look-up reads, once; None without onnx."""
    graph = onnx_graph(bundle)
    if graph is None:
        return None
    read = {name for node in graph.node if node.op_type not in _LOOK_UP for name in node.input}
    stretches: dict[tuple[str, str], int] = {}
    for tensor in graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place and tensor.name in read and not tensor.name.startswith(_POSITIONS):
            stretches[place["location"], place.get("offset", "0")] = int(place["length"])
    return sum(stretches.values())
