"""Reading `edgekit::TTSparseLinear` nodes of a graph, and putting plain products in their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from edgekit.contract import OPERATOR_DOMAIN
from edgekit.ops.registry import operator
from edgekit.ops.specs.tt_sparse_linear import CODES, GROUPS
from edgekit.ops.tt_sparse_rows import Array, numbers, two_of_four, unpacked_words
from edgekit.rewrite.match import scope_of, variable, weight_of
from edgekit.rewrite.weights import Weight

SPEC = operator("TTSparseLinear")


@dataclass(frozen=True)
class Layer:
    """A node, its attributes, and its inputs by name."""

    graph: gs.Graph
    node: gs.Node
    attributes: dict[str, Any]
    inputs: dict[str, gs.Tensor]

    @property
    def scope(self) -> str:
        """The module that it is of, by the name of its first constant."""
        return scope_of(next(tensor.name for name, tensor in self.inputs.items() if name != "x"))

    def array(self, name: str) -> Array | None:
        """The values of a constant operand, loaded if it is deferred; None where it does not exist."""
        tensor = self.inputs.get(name)
        if tensor is None:
            return None
        weight = weight_of(tensor)
        found: Array = weight.load() if weight is not None else tensor.values
        return found

    def factor(self, name: str, dtype: str) -> Weight:
        """a or b as an array of numbers, [R, K] or [R, O]."""
        shape = (self.attributes["rank"], self.side(name))

        def load() -> Array:
            found, scales = self.array(name), self.array(f"{name}_scales")
            assert found is not None
            return numbers(self.attributes, "factor", found, scales, shape[0] * shape[1]).reshape(shape).astype(dtype)

        return Weight(shape, dtype, load, ("factor", self.scope, name))

    def codes(self, name: str) -> Weight:
        """a or b as signed codes, int4 or int8 [R, K] or [R, O]."""
        shape, bits = (self.attributes["rank"], self.side(name)), self.attributes["factor_bits"]
        integer = np.dtype(ml_dtypes.int4) if bits == 4 else np.dtype(np.int8)

        def load() -> Array:
            words = self.array(name)
            assert words is not None
            signed = unpacked_words(words, bits, shape[0] * shape[1]) - 2 ** (bits - 1)
            found: Array = signed.astype(np.int8).astype(integer).reshape(shape)
            return found

        return Weight(shape, integer, load, ("factor codes", self.scope, name))

    def scales(self, name: str, dtype: str) -> Weight:
        """Those of the codes of a or b, [R, side / block]."""
        shape = (self.attributes["rank"], self.side(name) // self.attributes["factor_block"])

        def load() -> Array:
            found = self.array(f"{name}_scales")
            assert found is not None
            return found.astype(dtype).reshape(shape)

        return Weight(shape, dtype, load, ("factor scales", self.scope, name))

    def residual(self, dtype: str) -> Weight:
        """The residual of groups, zeros included, [O, K]."""
        shape = (self.attributes["out_features"], self.side("a"))

        def load() -> Array:
            places, values = self.array("positions"), self.array("values")
            assert places is not None
            assert values is not None
            scales = self.array("value_scales")
            return two_of_four(self.attributes, places, values, scales, shape[1]).astype(dtype)

        return Weight(shape, dtype, load, ("two of four", self.scope))

    def side(self, name: str) -> int:
        """The inputs for a, the outputs for b."""
        if name == "b":
            return int(self.attributes["out_features"])
        if "a" in self.inputs and len(self.inputs["a"].shape) == 2:
            return int(self.inputs["a"].shape[1])
        if self.attributes["residual"] == GROUPS:
            return int(
                self.attributes["entries"] * 4 // (self.attributes["group_kept"] * self.attributes["out_features"])
            )
        return int(self.inputs["x"].shape[2])

    @property
    def whole_blocks(self) -> bool:
        """Whether the pair's scales are each of one row's numbers."""
        block = self.attributes["factor_block"]
        return self.attributes["factor_bits"] in CODES and not any(self.side(name) % block for name in "ab")

    def replace(self, product: gs.Variable) -> None:
        """Let a product of [B, S, O], and the bias, stand in the node's place."""
        result = self.node.outputs[0]
        self.node.outputs.clear()
        if self.attributes["bias"]:
            inputs = [product, self.inputs["bias"]]
            self.graph.nodes.append(gs.Node("Add", self.scope + ".add_bias", {}, inputs, [result]))
        else:
            product.inputs[0].outputs = [result]

    def product(self, x: gs.Tensor, matrix: gs.Tensor, name: str) -> gs.Variable:
        """x times a matrix, by a new node."""
        result = variable(f"{name}.out")
        self.graph.nodes.append(gs.Node("MatMul", name, {}, [x, matrix], [result]))
        return result


def layers(graph: gs.Graph) -> Iterator[Layer]:
    """Every node of the operator, with all attributes."""
    for node in list(graph.nodes):
        if node.op == SPEC.name and node.domain == OPERATOR_DOMAIN:
            attributes = SPEC.complete(dict(node.attrs))
            names = [operand.name for operand in SPEC.active_inputs(attributes)]
            yield Layer(graph, node, attributes, dict(zip(names, node.inputs, strict=True)))
