"""edgekit::TTSparseLinear in standard ONNX operators.

The residual becomes a dense matrix: its memory does not grow with the tokens, as that of gathered inputs would, and
where the weights are constant a runtime makes it once. Codes are taken out of their words by Mod and Div, since
TensorRT has no bitwise operators for integers.
"""

from __future__ import annotations

import onnx

from edgekit.ops.functions._body import Body
from edgekit.ops.spec import Attributes, OpSpec
from edgekit.ops.specs.tt_sparse_linear import BITMAP, CODES, COLUMNS, GROUP


def function(spec: OpSpec, opset: int, attributes: Attributes, dtype: str) -> onnx.FunctionProto:
    """The body of one variant; see `edgekit.ops.tt_sparse_linear` for the semantics."""
    body = Body(spec, opset, attributes, dtype)
    x, terms = body.widened("x"), []
    if attributes["low_rank"]:
        a, b = (_factor(body, attributes, name, side) for name, side in (("a", _inputs(body)), ("b", _outputs(body))))
        terms.append(body.node("MatMul", body.node("MatMul", x, body.transpose(a, 1, 0)), b))
    if attributes["residual"]:
        terms.append(body.node("MatMul", x, body.transpose(_residual(body, attributes), 1, 0)))
    if attributes["bias"]:
        terms.append(body.widened("bias"))
    y = terms[0]
    for term in terms[1:]:
        y = body.node("Add", y, term)
    body.stored(y, out="y")
    return body.function()


def _inputs(body: Body) -> str:
    return body.size("x", 2)


def _outputs(body: Body) -> str:
    return body.integer("out_features")


def _factor(body: Body, attributes: Attributes, name: str, side: str) -> str:
    """[R, side] in the type of the sums."""
    count = body.node("Mul", body.integer("rank"), side)
    return body.reshape(_numbers(body, attributes, "factor", name, f"{name}_scales", count), body.integer("rank"), -1)


def _numbers(body: Body, attributes: Attributes, what: str, name: str, scales: str, count: str) -> str:
    """In the type of the sums; flat where they are codes."""
    bits = attributes[f"{what}_bits"]
    if bits not in CODES:
        return body.node("Cast", name, to=body.compute) if bits else body.widened(name)
    codes = body.node("Cast", _unpacked(body, name, bits, count), to=body.compute)
    blocks = body.node("Div", body.counted(count), body.integer(f"{what}_block"))
    of_each = body.node("Gather", body.node("Cast", scales, to=body.compute), blocks)
    return body.node("Mul", body.node("Sub", codes, body.real(2.0 ** (bits - 1))), of_each)


def _unpacked(body: Body, words: str, bits: int, count: str) -> str:
    """int64 [count] from int32 words, the lowest bits first; Mod is never negative here."""
    wide = body.node("Mod", body.node("Cast", words, to=onnx.TensorProto.INT64), body.ints(2**32))
    steps = body.ints(*(2**shift for shift in range(0, 32, bits)))
    codes = body.node("Mod", body.node("Div", body.unsqueeze(wide, 1), steps), body.ints(2**bits))
    return body.node("Slice", body.reshape(codes, -1), body.ints(0), count, body.ints(0))


def _residual(body: Body, attributes: Attributes) -> str:
    """[O, K] in the type of the sums."""
    entries, size = body.integer("entries"), body.node("Mul", _outputs(body), _inputs(body))
    values = _numbers(body, attributes, "value", "values", "value_scales", entries)
    if attributes["residual"] == BITMAP:
        # Where a bit is set, as many bits are set up to there as the number of its value.
        bits = _unpacked(body, "positions", 1, size)
        numbers = body.node("Sub", body.node("CumSum", bits, body.scalar(0)), body.ints(1))
        found = body.node("Gather", values, body.node("Max", numbers, body.ints(0)))
        flat = body.node("Where", body.node("Cast", bits, to=onnx.TensorProto.BOOL), found, body.real(0.0))
    else:
        places = _by_column(body, entries) if attributes["residual"] == COLUMNS else _by_group(body, entries)
        zeros = body.node("Expand", body.real(0.0), size)
        flat = body.node("ScatterElements", zeros, places, values, axis=0)
    return body.reshape(flat, _outputs(body), -1)


def _by_column(body: Body, entries: str) -> str:
    """Places of the entries in the flattened residual, int64 [E]: the row is how many rows start up to there."""
    begun = body.node("Expand", body.ints(0), body.node("Add", entries, body.ints(1)))
    starts = body.node("Cast", "starts", to=onnx.TensorProto.INT64)
    once = body.node("Expand", body.ints(1), _outputs(body))
    begun = body.node("ScatterElements", begun, starts, once, axis=0, reduction="add")
    rows = body.node("Sub", body.node("CumSum", begun, body.scalar(0)), body.ints(1))
    rows = body.node("Slice", rows, body.ints(0), entries, body.ints(0))
    columns = _unpacked(body, "positions", 16, entries)
    return body.node("Add", body.node("Mul", rows, _inputs(body)), columns)


def _by_group(body: Body, entries: str) -> str:
    """The same for places in groups."""
    groups = body.node("Div", body.counted(entries), body.integer("group_kept"))
    return body.node("Add", body.node("Mul", groups, body.ints(GROUP)), _unpacked(body, "positions", 2, entries))
