"""edgekit::TTSparseLinear in standard ONNX operators.

The residual is scattered into a dense matrix: its memory does not grow with the tokens, as that of gathered inputs
would, and where the weights are constant a runtime does it once. Two columns are taken out of a word by Mod and Div,
since TensorRT has no bitwise operators for integers.
"""

from __future__ import annotations

import onnx

from edgekit.ops.functions._body import Body
from edgekit.ops.spec import Attributes, OpSpec


def function(spec: OpSpec, opset: int, attributes: Attributes, dtype: str) -> onnx.FunctionProto:
    """The body of one variant; see `edgekit.ops.tt_sparse_linear` for the semantics."""
    body = Body(spec, opset, attributes, dtype)
    x = body.widened("x")
    y = body.node("MatMul", x, body.transpose(_residual(body), 1, 0))
    if attributes["low_rank"]:
        inner = body.node("MatMul", x, body.transpose(body.widened("a"), 1, 0))
        y = body.node("Add", y, body.node("MatMul", inner, body.widened("b")))
    if attributes["bias"]:
        y = body.node("Add", y, body.widened("bias"))
    body.stored(y, out="y")
    return body.function()


def _residual(body: Body) -> str:
    """[O, K] in the type of the sums."""
    # In int64: the high half of a word is its floor quotient modulo 2^16, and Mod is never negative here.
    half, words = body.ints(2**16), body.node("Cast", "columns", to=onnx.TensorProto.INT64)
    low = body.node("Mod", words, half)
    high = body.node("Mod", body.node("Div", body.node("Sub", words, low), half), half)
    pairs = body.node("Concat", body.unsqueeze(low, 2), body.unsqueeze(high, 2), axis=2)
    columns = body.reshape(pairs, 0, -1)
    shape = body.node("Concat", body.size("values", 0), body.size("x", 2), axis=0)
    zeros = body.node("Expand", body.real(0.0), shape)
    return body.node("ScatterElements", zeros, columns, body.widened("values"), axis=1)
