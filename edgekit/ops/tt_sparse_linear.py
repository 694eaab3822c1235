"""A contracted tensor train plus a sparse residual, as one operator. See `edgekit.ops.specs.tt_sparse_linear`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgekit.ops.spec import Attributes
from edgekit.ops.specs.tt_sparse_linear import SPEC
from edgekit.ops.torch_op import register, symbolic

__all__ = ["OP", "SPEC", "operands", "reference", "tt_sparse_linear"]


def tt_sparse_linear(
    x: Tensor, a: Tensor | None, b: Tensor | None, columns: Tensor, values: Tensor, bias: Tensor | None
) -> Tensor:
    """y = x Aᵀ B + x Sᵀ + bias; half precision is summed in float32.

    Args:
        x: [B, S, K].
        a: [R, K], b: [R, O]; both None for the residual alone.
        columns: int32 [O, Z/2], two 16-bit columns to a word; those of a row are distinct.
        values: [O, Z].
        bias: [O] or None.

    Returns:
        y [B, S, O].
    """
    if torch.onnx.is_in_onnx_export():
        return symbolic(SPEC, *operands(x, a, b, columns, values, bias))["y"]
    return _output(x, a, b, columns, values, bias)


def reference(attributes: Attributes, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The operator by the names of its operands."""
    given = (inputs.get(operand.name) for operand in SPEC.inputs)
    return {"y": _output(*given)}


def operands(x: Any, a: Any, b: Any, columns: Any, values: Any, bias: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and inputs by name, from the arguments of `OP`."""
    attributes = SPEC.complete({"low_rank": int(a is not None), "bias": int(bias is not None)})
    given = {"x": x, "a": a, "b": b, "columns": columns, "values": values, "bias": bias}
    return attributes, {name: value for name, value in given.items() if value is not None}


def _output(x: Any, a: Any, b: Any, columns: Any, values: Any, bias: Any) -> Tensor:
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    wide = x.to(compute)
    halves = torch.stack((columns & 0xFFFF, (columns >> 16) & 0xFFFF), -1).flatten(1).long()
    residual = wide.new_zeros(len(values), x.shape[-1]).scatter(1, halves, values.to(compute))
    y: Tensor = wide @ residual.T
    if a is not None:
        y = y + (wide @ a.to(compute).T) @ b.to(compute)
    if bias is not None:
        y = y + bias.to(compute)
    return y.to(x.dtype)


#: `torch.ops.edgekit.tt_sparse_linear`.
OP = register(
    SPEC,
    "(Tensor x, Tensor? a, Tensor? b, Tensor columns, Tensor values, Tensor? bias) -> Tensor[]",
    lambda *arguments: [_output(*arguments)],
    operands,
)
