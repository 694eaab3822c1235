"""Bytes that a decoding step reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgekit.benchmark.run import weight_bytes
from edgekit.bundle import Bundle
from edgekit.report.graph import graph_facts

#: Of these a step reads one row.
_ROWS = ("embedding", "position tables")


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
    facts = graph_facts(bundle)
    if facts is None:
        return Traffic(weight_bytes(bundle), cache, exact=False)
    return Traffic(sum(each.bytes for each in facts.constants if each.role not in _ROWS), cache, exact=True)
