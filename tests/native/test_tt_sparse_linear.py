"""edgekit::TTSparseLinear by the native CPU library: what it refuses, and any number of tokens and threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.ops.registry import operator
from edgekit.ops.tt_sparse_rows import packed_words, positions
from tests.native.test_refusals import refuse
from tests.ops.backends import onnx_native

SPEC = operator("TTSparseLinear")
OUTPUTS, RANK = 10, 3
KINDS = {"columns": 1, "bitmap": 2, "groups": 3}

pytestmark = pytest.mark.usefixtures("library")


def drawn(
    tokens: int, inputs: int = 20, outputs: int = OUTPUTS, rank: int = RANK, residual: int = 1, bits: int = 0
) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]:
    """Attributes, operands, and the residual [O, K] in float64."""
    draw = np.random.default_rng(tokens)
    scores = draw.random((outputs, inputs))
    mask = scores < 0.3 if residual < 3 else (scores.reshape(-1, 4).argsort(1).argsort(1) < 2).reshape(scores.shape)
    count = int(mask.sum())
    attributes = {"out_features": outputs, "rank": rank, "entries": count, "low_rank": 1, "bias": 1}
    attributes |= {"residual": residual, "value_bits": bits, "value_block": 32}
    found = {
        "x": draw.standard_normal((1, tokens, inputs)).astype("f"),
        "a": draw.standard_normal((rank, inputs)).astype("f"),
        "b": draw.standard_normal((rank, outputs)).astype("f"),
        **positions(mask, residual, 2),
    }
    if bits:
        codes = draw.integers(0, 2**bits, count)
        found["values"] = packed_words(codes, bits)
        found["value_scales"] = (draw.standard_normal(-(-count // 32)) / 2**bits).astype(np.float16)
        values = (codes - 2 ** (bits - 1)) * np.repeat(found["value_scales"].astype("d"), 32)[:count]
    else:
        found["values"] = draw.standard_normal(count).astype("f")
        values = found["values"].astype("d")
    dense = np.zeros((outputs, inputs))
    dense[mask] = values
    return SPEC.complete(attributes), found | {"bias": draw.standard_normal(outputs).astype("f")}, dense


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2, 3, 15, 16, 17, 63, 64, 65, 130])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_tokens(kind: str, tokens: int, threads: int) -> None:
    """Around the limits of gathering, of a vector, and of what is done at once."""
    attributes, inputs, residual = drawn(tokens, 192, 333, 37, KINDS[kind], bits=8)
    weight = inputs["b"].T.astype("d") @ inputs["a"] + residual
    y = onnx_native.run(SPEC, attributes, inputs, False, threads)["y"]
    expected = inputs["x"] @ weight.T + inputs["bias"]
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_no_tokens_give_no_outputs() -> None:
    attributes, inputs, _ = drawn(0)
    assert onnx_native.run(SPEC, attributes, inputs, False)["y"].shape == (1, 0, OUTPUTS)


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("column", [20, 65535])
def test_a_column_beyond_the_inputs(tokens: int, column: int) -> None:
    attributes, inputs, _ = drawn(tokens)
    inputs["positions"].view("<u2")[inputs["starts"][7]] = column
    assert f"columns must be inputs, 0 to 19; row 7 has column {column}" in refuse(SPEC, attributes, inputs)


@pytest.mark.parametrize("tokens", [1, 5])
def test_rows_with_another_number_of_bits(tokens: int) -> None:
    attributes, inputs, _ = drawn(tokens, residual=2)
    inputs["positions"].view(np.uint8)[0] ^= 1
    assert "positions must be as many as entries; row 0 has" in refuse(SPEC, attributes, inputs)


@pytest.mark.parametrize(("row", "start"), [(0, 1), (3, -1), (4, 10**6), (5, 2)])
@pytest.mark.parametrize("residual", [1, 2])
def test_starts_that_do_not_rise(residual: int, row: int, start: int) -> None:
    attributes, inputs, _ = drawn(1, residual=residual)
    inputs["starts"][row] = start
    assert "starts must begin with 0 and rise to E" in refuse(SPEC, attributes, inputs)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "positions": ({"positions": np.zeros(3, "i4")}, "positions must have"),
    "type-of-positions": ({"positions": np.zeros(40, "i8")}, "input positions must be int32; it is int64"),
    "rank": ({"b": np.zeros((4, 10), "f")}, "axis R of b must be that of rank; it is 4, there it is 3"),
    "inputs": ({"a": np.zeros((3, 24), "f")}, "axis K of a must be that of x; it is 24, there it is 20"),
    "outputs": ({"bias": np.zeros(9, "f")}, "axis O of bias must be that of out_features; it is 9, there it is 10"),
    "type": ({"values": np.zeros(12, "d")}, "input values must be float32; it is float64"),
    "entries": ({"values": np.zeros(12, "f")}, "axis E of values must be that of entries; it is 12"),
}


@pytest.mark.parametrize("name", BAD)
def test_operands_that_contradict_each_other(name: str) -> None:
    change, words = BAD[name]
    attributes, inputs, _ = drawn(2)
    assert words in refuse(SPEC, attributes, inputs | change)


@pytest.mark.parametrize("name", ["values", "value_scales"])
def test_codes_and_scales_of_another_number(name: str) -> None:
    attributes, inputs, _ = drawn(2, bits=4)
    inputs[name] = np.append(inputs[name], inputs[name][:1])
    assert f"{name} must have {len(inputs[name]) - 1} numbers; it has {len(inputs[name])}" in refuse(
        SPEC, attributes, inputs
    )


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"factor_bits": 5}, "factor_bits must be one of 0, 16, 8, 4; it is 5"),
        ({"value_block": 40}, "value_block must be a multiple of 16; it is 40"),
        ({"low_rank": 2}, "attribute low_rank must be 0 or 1; it is 2"),
        ({"bias": 0}, "these attributes ask for 6 inputs; the node has 7"),
        ({"low_rank": 0, "rank": 0}, "these attributes ask for 5 inputs; the node has 7"),
        ({"rank": 0}, "rank must be at least 1 with a pair, 0 without; it is 0"),
        ({"entries": 0}, "entries must be at least 1 with a residual, 0 without; it is 0"),
        ({"low_rank": 0, "rank": 0, "residual": 0, "entries": 0}, "there must be a pair or a residual"),
        ({"residual": 3}, "groups need K of a multiple of 4"),
    ],
    ids=str,
)
def test_attributes_that_are_not_to_be_had(attributes: dict[str, int], words: str) -> None:
    given, inputs, _ = drawn(1)
    if attributes.get("residual") == 3:
        inputs = {name: value for name, value in inputs.items() if name != "starts"}
        inputs["positions"] = np.zeros(-(-given["entries"] // 16), "i4")
    assert words in refuse(SPEC, given | attributes, inputs, ("y",))
