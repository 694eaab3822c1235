"""What a bundle's ONNX file holds: its constants by role, and its operators. Weights are not read."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from edgekit.bundle import Bundle
from edgekit.report.onnx_graph import onnx_graph

#: Roles by a word of the constant's name, the first that fits; names are the checkpoint's.
_ROLES = (
    ("position tables", re.compile(r"^rope\.")),
    ("embedding", re.compile(r"embed_tokens")),
    ("output head", re.compile(r"lm_head")),
    ("norms", re.compile(r"norm")),
    ("attention", re.compile(r"\.self_attn\.")),
    ("MLP", re.compile(r"\.mlp\.")),
)
_OTHER = "other"
#: What quantisation adds to the codes.
_SCALES = re.compile(r"[._](scales|zero_points|scale|zero_point)$")


@dataclass(frozen=True)
class Constant:
    """A stretch of a data file, or a constant in the ONNX file itself.

    Attributes:
        role: what the model uses it for; "embedding and output head" where both read the same bytes.
        scales: whether it holds scales or zero points.
    """

    name: str
    role: str
    scales: bool
    bytes: int


@dataclass(frozen=True)
class GraphFacts:
    """Constants, each stretch of a file once, in their order; nodes by (domain, operator), the most frequent first."""

    constants: tuple[Constant, ...]
    nodes: dict[tuple[str, str], int]
    external_bytes: int


def graph_facts(bundle: Bundle) -> GraphFacts | None:
    """What the bundle's graph holds; None where the package onnx is not installed.

    Raises:
        BundleError: it is no ONNX file.
    """
    graph = onnx_graph(bundle)
    if graph is None:
        return None
    merged: dict[Any, Constant] = {}
    external = 0
    for tensor in graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        size = int(place["length"]) if place else _inline_bytes(tensor)
        key = (place["location"], place.get("offset", "0")) if place else tensor.name
        found = Constant(tensor.name, role_of(tensor.name), _SCALES.search(tensor.name) is not None, size)
        if key in merged:
            merged[key] = _shared(merged[key], found)
            continue
        merged[key] = found
        external += size if place else 0
    nodes = Counter((node.domain or "ai.onnx", node.op_type) for node in graph.node)
    return GraphFacts(tuple(merged.values()), dict(nodes.most_common()), external)


def role_of(name: str) -> str:
    """What a model uses the constant of that name for."""
    return next((role for role, pattern in _ROLES if pattern.search(name)), _OTHER)


def _shared(one: Constant, other: Constant) -> Constant:
    """Two names of the same bytes."""
    if one.role == other.role or other.role in one.role:
        return one
    return Constant(one.name, f"{one.role} and {other.role}", one.scales, max(one.bytes, other.bytes))


def _inline_bytes(tensor: Any) -> int:
    """Bytes of a constant that the ONNX file itself holds."""
    import numpy as np
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return int(np.prod(tensor.dims, dtype=np.int64)) * dtype.itemsize
