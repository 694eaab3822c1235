"""Adding nodes in the place of one that is lowered."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from edgekit.rewrite.match import Names, constant, variable


class Lowering:
    """Makes nodes and shared constants with fresh names."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph, self._names = graph, Names(graph)
        self._constants: dict[Any, gs.Constant] = {}

    def node(self, op: str, inputs: list[gs.Tensor], stem: str, **attributes: Any) -> gs.Variable:
        """A node's single output, named after `stem`."""
        result = variable(self._names.fresh(stem))
        self._graph.nodes.append(gs.Node(op, result.name, attributes, inputs, [result]))
        return result

    def replaces(self, old: gs.Node, result: gs.Tensor) -> None:
        """Let what `result` holds be the output of `old`, which loses its place."""
        [output] = old.outputs
        old.outputs.clear()
        [producer] = result.inputs
        producer.outputs = [output if tensor is result else tensor for tensor in producer.outputs]

    def ints(self, *values: int) -> gs.Constant:
        """int64 [n]."""
        return self._constant(values, np.int64)

    def scalar(self, value: float, dtype: str) -> gs.Constant:
        """A scalar of an element type."""
        return self._constant(value, dtype)

    def _constant(self, values: Any, dtype: Any) -> gs.Constant:
        key = (values, str(np.dtype(dtype)))
        if key not in self._constants:
            self._constants[key] = constant(self._names.fresh("lowering.constant"), values, dtype)
        return self._constants[key]
