"""edgekit::TPAAppend in standard ONNX operators."""

from __future__ import annotations

import onnx

from edgekit.ops.functions._body import Body
from edgekit.ops.spec import Attributes, OpSpec


def function(spec: OpSpec, opset: int, attributes: Attributes, dtype: str) -> onnx.FunctionProto:
    """The past with the new rows after it, or in its place."""
    body = Body(spec, opset, attributes, dtype)
    body.appended("past", "new", "present")
    return body.function()
