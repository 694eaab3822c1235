"""Writing the body of an ONNX function node by node."""

from __future__ import annotations

import sys
from typing import Any

import onnx
from onnx import FunctionProto, NodeProto, TensorProto, helper

from edgekit.ops.spec import Attributes, OperatorError, OpSpec

#: Split with num_outputs and ReduceSum with axes as an input need this; everything here exists up to 20, which is what
#: TensorRT 10.3 takes, and nothing that came later would serve better.
LOWEST_OPSET = 18
_ONNX_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
}


class Body:
    """Collects nodes; each method returns the name of what its node gives.

    Sums are made in `compute`: float32, or float64 for a float64 graph.
    """

    def __init__(self, spec: OpSpec, opset: int, attributes: Attributes, dtype: str) -> None:
        if opset < LOWEST_OPSET:
            raise OperatorError(
                f"the function body of {spec.name} needs opset {LOWEST_OPSET} or later", f"the graph has opset {opset}"
            )
        if dtype not in spec.dtypes:
            raise OperatorError(f"{spec.name} takes {', '.join(spec.dtypes)}", f"the graph has {dtype}")
        self._spec, self._opset, self._attributes = spec, opset, attributes
        self._storage = _ONNX_TYPES[dtype]
        self.compute = TensorProto.DOUBLE if dtype == "float64" else TensorProto.FLOAT
        self._nodes: list[NodeProto] = []
        self._constants: dict[Any, str] = {}

    def node(self, op: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """A node of the default domain with one output, named `out` or numbered."""
        name = out or f"{op}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def split(self, x: str) -> tuple[str, str]:
        """The halves of the last axis."""
        names = (f"Split_{len(self._nodes)}_a", f"Split_{len(self._nodes)}_b")
        self._nodes.append(helper.make_node("Split", [x], list(names), name=names[0], axis=-1, num_outputs=2))
        return names

    def ints(self, *values: int) -> str:
        """A constant int64 [n]."""
        return self._constant(("ints", values), value_ints=list(values))

    def scalar(self, value: int) -> str:
        """A constant int64 scalar."""
        return self._constant(("scalar", value), value_int=value)

    def real(self, value: float) -> str:
        """A constant scalar to compute with."""
        key = ("real", value)
        if key not in self._constants:
            tensor = helper.make_tensor("value", self.compute, [], [value])
            self._constants[key] = self.node("Constant", value=tensor)
        return self._constants[key]

    def attribute(self, name: str) -> str:
        """A float attribute of the operator, as a scalar to compute with."""
        constant = helper.make_node("Constant", [], [f"attribute_{name}"], name=f"attribute_{name}")
        reference = constant.attribute.add(name="value_float", type=onnx.AttributeProto.FLOAT)
        reference.ref_attr_name = name
        self._nodes.append(constant)
        if self.compute == TensorProto.DOUBLE:
            return self.node("Cast", constant.output[0], to=self.compute)
        return str(constant.output[0])

    def integer(self, name: str) -> str:
        """An int attribute of the operator, as int64 [1]."""
        constant = helper.make_node("Constant", [], [f"attribute_{name}"], name=f"attribute_{name}")
        reference = constant.attribute.add(name="value_int", type=onnx.AttributeProto.INT)
        reference.ref_attr_name = name
        if ("integer", name) not in self._constants:
            self._nodes.append(constant)
            self._constants["integer", name] = self.reshape(constant.output[0], 1)
        return self._constants["integer", name]

    def counted(self, length: str) -> str:
        """0, 1, ... below a length that is int64 [1]."""
        return self.node("Range", self.scalar(0), self.node("Squeeze", length, self.ints(0)), self.scalar(1))

    def widened(self, x: str) -> str:
        """x in the type of the sums."""
        return x if self._storage == self.compute else self.node("Cast", x, to=self.compute)

    def stored(self, x: str, out: str = "") -> str:
        """x in the type of the graph."""
        if self._storage != self.compute:
            return self.node("Cast", x, out=out, to=self._storage)
        return self.node("Identity", x, out=out) if out else x

    def size(self, x: str, axis: int) -> str:
        """The length of an axis, int64 [1]."""
        return self.node("Shape", x, start=axis, end=axis + 1)

    def reshape(self, x: str, *sizes: int | str) -> str:
        """Reshape to numbers (0 keeps the size of that axis, -1 is what is left) and names of sizes int64 [1]."""
        if all(isinstance(size, int) for size in sizes):
            return self.node("Reshape", x, self.ints(*(size for size in sizes if isinstance(size, int))))
        parts = [self.ints(size) if isinstance(size, int) else size for size in sizes]
        return self.node("Reshape", x, self.node("Concat", *parts, axis=0))

    def transpose(self, x: str, *perm: int) -> str:
        return self.node("Transpose", x, perm=list(perm))

    def unsqueeze(self, x: str, *axes: int) -> str:
        return self.node("Unsqueeze", x, self.ints(*axes))

    def sum(self, x: str, axis: int, keep: bool = False) -> str:
        return self.node("ReduceSum", x, self.ints(axis), keepdims=int(keep))

    def appended(self, past: str, new: str, out: str) -> str:
        """The cache rows of all T tokens [B, T, R, W]; the present is given the name `out`.

        In place the past is a buffer for T tokens or more: the new rows replace those from T - S on, and the present
        is the buffer with its rows behind T as they were.
        """
        if not self._attributes.get("in_place"):
            return self.node("Concat", past, new, out=out, axis=1)
        total, axis = self.size("attention_mask", 1), self.ints(1)
        older = self.node("Slice", past, self.ints(0), self.node("Sub", total, self.size(new, 1)), axis)
        rows = self.node("Concat", older, new, axis=1)
        behind = self.node("Slice", past, total, self.ints(sys.maxsize), axis)
        self.node("Concat", rows, behind, out=out, axis=1)
        return rows

    def function(self) -> FunctionProto:
        """The finished function; it declares every attribute that a node carries."""
        return helper.make_function(
            self._spec.domain,
            self._spec.name,
            [operand.name for operand in self._spec.active_inputs(self._attributes)],
            [operand.name for operand in self._spec.active_outputs(self._attributes)],
            self._nodes,
            [helper.make_opsetid("", self._opset)],
            [attribute.name for attribute in self._spec.attributes],
            doc_string=self._spec.summary,
        )

    def _constant(self, key: Any, **value: Any) -> str:
        if key not in self._constants:
            self._constants[key] = self.node("Constant", **value)
        return self._constants[key]
