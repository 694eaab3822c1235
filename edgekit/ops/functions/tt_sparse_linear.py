"""edgekit::TTSparseLinear in standard ONNX operators.

The base and the residual become dense matrices: their memory does not grow with the tokens, as that of gathered
inputs would, and where the weights are constant a runtime makes them once. Codes are taken out of their words by Mod
and Div, since TensorRT has no bitwise operators for integers.
"""

from __future__ import annotations

import onnx

from edgekit.ops.functions._body import Body
from edgekit.ops.spec import Attributes, OpSpec
from edgekit.ops.specs.tt_sparse_linear import BITMAP, CHUNK, CODES, COLUMNS, GROUP, TILE


def function(spec: OpSpec, opset: int, attributes: Attributes, dtype: str) -> onnx.FunctionProto:
    """The body of one variant; see `edgekit.ops.tt_sparse_linear` for the semantics."""
    body = Body(spec, opset, attributes, dtype)
    x, terms = body.widened("x"), []
    if attributes["base_bits"]:
        terms.append(body.node("MatMul", x, body.transpose(_base(body, attributes), 1, 0)))
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


def _base(body: Body, attributes: Attributes) -> str:
    """[O, K] in the type of the sums, out of whole tiles of outputs and whole blocks of inputs."""
    bits, one = attributes["base_bits"], body.ints(1)
    tiles = body.node("Div", body.node("Add", _outputs(body), body.ints(TILE - 1)), body.ints(TILE))
    block = body.integer("base_block")
    blocks = body.node("Div", body.node("Sub", body.node("Add", _inputs(body), block), one), block)
    words = body.node("Mod", body.node("Cast", "base", to=onnx.TensorProto.INT64), body.ints(2**32))
    words = body.reshape(words, tiles, -1, bits, TILE, 1)
    rows = body.node("Mul", tiles, body.ints(TILE))
    codes = body.node("Cast", body.reshape(_base_codes(body, words, bits), rows, blocks, -1), to=body.compute)
    if attributes["zero_points"]:
        count = body.node("Mul", body.node("Mul", rows, blocks), body.ints(bits))
        planes = body.reshape(_unpacked(body, "base_zeros", 1, count), -1, bits, TILE)
        of_bits = body.reshape(body.ints(*(2**plane for plane in range(bits))), bits, 1)
        zeros = body.node("Cast", _by_row(body, body.sum(body.node("Mul", planes, of_bits), 1), tiles), to=body.compute)
    else:
        zeros = body.real(2.0 ** (bits - 1))
    scales = _by_row(body, body.node("Cast", "base_scales", to=body.compute), tiles)
    dense = body.reshape(body.node("Mul", body.node("Sub", codes, zeros), scales), rows, -1)
    ends = body.node("Concat", _outputs(body), _inputs(body), axis=0)
    return body.node("Slice", dense, body.ints(0, 0), ends, body.ints(0, 1))


def _by_row(body: Body, numbers: str, tiles: str) -> str:
    """[rows, blocks, 1] of what is stored by tile, block and row."""
    by_tile = body.transpose(body.reshape(numbers, tiles, -1, TILE), 0, 2, 1)
    return body.reshape(by_tile, body.node("Mul", tiles, body.ints(TILE)), -1, 1)


def _base_codes(body: Body, words: str, bits: int) -> str:
    """int64 [tiles, TILE, chunks, CHUNK] of words int64 [tiles, chunks, bits, TILE, 1]; see the specification."""

    def steps(*places: int) -> str:
        return body.ints(*(2 ** (8 * byte + place) for place in places for byte in range(4)))

    def of_chunks(codes: str, size: int) -> str:
        return body.reshape(body.transpose(codes, 0, 3, 1, 2, 4), 0, TILE, -1, size)

    def fields(of: str, divisors: str, values: int) -> str:
        return body.node("Mod", body.node("Div", of, divisors), body.ints(values))

    if bits != 3:
        return of_chunks(fields(words, steps(*range(0, 8, bits)), 2**bits), CHUNK)
    first, last, axis = body.ints(0), body.ints(2), body.ints(2)
    lower = fields(body.node("Slice", words, first, last, axis), steps(6), 4)
    third = fields(body.node("Slice", words, last, body.ints(3), axis), body.reshape(steps(6, 7), 2, 1, 4), 2)
    rest = body.node("Add", lower, body.node("Mul", third, body.ints(4)))
    whole = of_chunks(fields(words, steps(0, 3), 8), 24)
    return body.node("Concat", whole, of_chunks(rest, CHUNK - 24), axis=-1)


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
