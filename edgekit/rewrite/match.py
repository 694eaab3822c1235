"""Small questions that rules ask of a graph."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from edgekit.rewrite.weights import Weight

MICROSOFT = "com.microsoft"


def producer(tensor: gs.Tensor) -> gs.Node | None:
    """The node that makes a tensor; None for inputs and constants."""
    return tensor.inputs[0] if tensor.inputs else None


def produced_by(tensor: gs.Tensor, op: str) -> gs.Node | None:
    """The node that makes a tensor if it is of type `op`."""
    node = producer(tensor)
    return node if node is not None and node.op == op else None


def only_consumer(tensor: gs.Tensor, op: str | None = None) -> gs.Node | None:
    """The single node that reads a tensor (of type `op` if given)."""
    if len(tensor.outputs) != 1:
        return None
    node = tensor.outputs[0]
    return node if op is None or node.op == op else None


def weight_of(tensor: gs.Tensor) -> Weight | None:
    """The deferred weight behind a constant."""
    if isinstance(tensor, gs.Constant) and isinstance(tensor._values, Weight):
        return tensor._values
    return None


def linear_weight(node: gs.Node) -> Weight | None:
    """The weight [in, out] of a matrix product whose right side is a constant matrix."""
    if node.op not in ("MatMul", "FusedMatMul") or len(node.inputs) != 2:
        return None
    weight = weight_of(node.inputs[1])
    if weight is None or len(weight.shape) != 2:
        return None
    return weight.transposed() if node.attrs.get("transB") else weight


def constant(name: str, values: Any, dtype: Any) -> gs.Constant:
    """A small constant held in the graph itself."""
    return gs.Constant(name, np.asarray(values, dtype=dtype))


def variable(name: str, dtype: Any = None, shape: Any = None) -> gs.Variable:
    """An intermediate tensor."""
    return gs.Variable(name, dtype=dtype, shape=shape)


class Names:
    """Fresh tensor and node names with a common prefix."""

    def __init__(self, graph: gs.Graph) -> None:
        self._taken = set(graph.tensors()) | {node.name for node in graph.nodes}

    def fresh(self, stem: str) -> str:
        """`stem`, or `stem.1`, `stem.2`, … if that is taken."""
        for suffix in itertools.chain([""], (f".{i}" for i in itertools.count(1))):
            name = stem + suffix
            if name not in self._taken:
                self._taken.add(name)
                return name
        raise AssertionError("unreachable")


def scope_of(name: str) -> str:
    """The module path of a weight: "model.layers.0.mlp.up_proj" of "model.layers.0.mlp.up_proj.weight"."""
    return name.rsplit(".", 1)[0]
