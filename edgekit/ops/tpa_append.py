"""Appending new rows to a cache, as one operator. See `edgekit.ops.specs.tpa_append`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgekit.ops.spec import Attributes
from edgekit.ops.specs.tpa_append import SPEC
from edgekit.ops.torch_op import register, symbolic

__all__ = ["OP", "SPEC", "operands", "reference", "tpa_append"]


def tpa_append(past: Tensor, new: Tensor, attention_mask: Tensor) -> Tensor:
    """Append along axis 1.

    Args:
        past: [B, P, R, W]; P may be 0.
        new: [B, S, R, W].
        attention_mask: int64 [B, P + S]; native code takes the length from it.

    Returns:
        present [B, P + S, R, W].
    """
    if torch.onnx.is_in_onnx_export():
        return symbolic(SPEC, *operands(past, new, attention_mask))["present"]
    return torch.cat((past, new), 1)


def reference(attributes: Attributes, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The operator by the names of its operands."""
    return {"present": torch.cat((inputs["past"], inputs["new"]), 1)}


def operands(past: Any, new: Any, attention_mask: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and inputs by name, from the arguments of `OP`."""
    return SPEC.complete({}), {"past": past, "new": new, "attention_mask": attention_mask}


#: `torch.ops.edgekit.tpa_append`.
OP = register(
    SPEC,
    "(Tensor past, Tensor new, Tensor attention_mask) -> Tensor[]",
    lambda past, new, attention_mask: [torch.cat((past, new), 1)],
    operands,
)
