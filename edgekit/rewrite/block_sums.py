"""Appending the sum of each block to a tensor: the columns that a matrix with offsets is multiplied by."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from edgekit.rewrite.match import constant, variable
from edgekit.rewrite.quantized import QuantizedParts


class BlockSums:
    """Adds Reshape, ReduceSum and Concat once per tensor: [B, S, K] → [B, S, K + K/block]."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._made: dict[str, gs.Variable] = {}
        self._constants: dict[str, gs.Constant] = {}

    def appended(self, x: gs.Tensor, parts: QuantizedParts) -> gs.Variable:
        """x with its block sums behind it."""
        if x.name not in self._made:
            self._made[x.name] = self._append(x, parts)
        return self._made[x.name]

    def _append(self, x: gs.Tensor, parts: QuantizedParts) -> gs.Variable:
        block = parts.block
        blocks = parts.inputs // (block + 1)
        shape = self._constant(f"block_sums.shape_{blocks}", [0, 0, blocks, block])
        axis = self._constant("block_sums.axis", [-1])
        split, sums, whole = (variable(f"{x.name}.{part}") for part in ("blocks", "block_sums", "with_block_sums"))
        self._graph.nodes.extend(
            [
                gs.Node("Reshape", split.name, {}, [x, shape], [split]),
                gs.Node("ReduceSum", sums.name, {"keepdims": 0}, [split, axis], [sums]),
                gs.Node("Concat", whole.name, {"axis": -1}, [x, sums], [whole]),
            ]
        )
        return whole

    def _constant(self, name: str, values: list[int]) -> gs.Constant:
        if name not in self._constants:
            self._constants[name] = constant(name, values, np.int64)
        return self._constants[name]
