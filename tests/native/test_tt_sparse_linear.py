"""edgekit::TTSparseLinear by the native CPU library: what it refuses, and any number of tokens and threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.ops.registry import operator
from edgekit.ops.tt_sparse_base import base_operands
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


def with_base(
    tokens: int, inputs: int, outputs: int, bits: int, block: int, zeros: bool, rounded: int = 16
) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]:
    """Attributes and operands of a base alone, and its weights [O, K] in float64."""
    draw, blocks = np.random.default_rng(tokens + inputs), -(-inputs // block)
    codes = draw.integers(0, 2**bits, (outputs, blocks, block))
    scales = (draw.standard_normal((outputs, blocks)) / 8).astype(np.float16)
    points = draw.integers(0, 2**bits, (outputs, blocks)) if zeros else None
    attributes = {"out_features": outputs, "low_rank": 0, "bias": 0, "residual": 0}
    attributes |= {"base_bits": bits, "base_block": block, "zero_points": int(zeros)}
    attributes |= {"input_bits": rounded}
    x = draw.standard_normal((1, tokens, inputs)).astype("f")
    centred = codes - (points[..., None] if points is not None else 2 ** (bits - 1))
    dense = (centred * scales[..., None].astype("d")).reshape(outputs, -1)[:, :inputs]
    return SPEC.complete(attributes), {"x": x} | base_operands(codes, scales, points, bits), dense


@pytest.mark.parametrize(("rounded", "error"), [(16, 4e-5), (24, 1e-6)])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 6, 7, 8, 9, 63, 64, 65, 130])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_base_for_any_number_of_tokens(bits: int, tokens: int, threads: int, rounded: int, error: float) -> None:
    """Around what is done at once, with tasks that end inside of the outputs."""
    attributes, inputs, weight = with_base(tokens, 700, 1333, bits, 32 * bits - 32, tokens % 2 == 1, rounded)
    y = onnx_native.run(SPEC, attributes, inputs, False, threads)["y"]
    expected = inputs["x"] @ weight.T
    np.testing.assert_allclose(y, expected, rtol=0, atol=3 * error * np.abs(expected).max())
    assert np.sqrt(np.square(y - expected).mean()) < error * np.sqrt(np.square(expected).mean())


def test_an_outlier_costs_precision_in_its_own_block_alone() -> None:
    """Rounding is by block: with a weight of 0 for it, what it changes is what rounding its block's others may."""
    attributes, inputs, weight = with_base(1, 256, 64, 4, 64, False)
    words = inputs["base"].view(np.uint8).reshape(4, 8, 4, 16, 4)
    words[:, 2, 0, :, 0] = words[:, 2, 0, :, 0] & 0xF0 | 8  # input 64 of every output: the code that stands for 0
    weight[:, 64] = 0
    inputs["x"][0, 0, 64] = 1e5
    y = onnx_native.run(SPEC, attributes, inputs, False)["y"][0, 0]
    expected = inputs["x"][0, 0] @ weight.T
    most = np.abs(weight[:, 64:128]).sum(1) * 1e5 / (2 * 32600)
    assert (np.abs(y - expected) <= most + 1e-4).all()
    assert np.abs(y - expected).max() > 1e-2


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_an_input_that_is_not_finite_makes_its_token_nan(value: float) -> None:
    attributes, inputs, weight = with_base(3, 100, 40, 3, 32, True)
    inputs["x"][0, 1, 99] = value
    y = onnx_native.run(SPEC, attributes, inputs, False)["y"]
    assert np.isnan(y[0, 1]).all()
    for token in (0, 2):
        expected = inputs["x"][0, token] @ weight.T
        np.testing.assert_allclose(y[0, token], expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["base", "base_scales", "base_zeros"])
def test_a_base_of_another_size(name: str) -> None:
    attributes, inputs, _ = with_base(1, 100, 40, 3, 32, True)
    inputs[name] = np.append(inputs[name], inputs[name][:1])
    assert f"{name} must have {len(inputs[name]) - 1} numbers; it has {len(inputs[name])}" in refuse(
        SPEC, attributes, inputs
    )


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"base_bits": 8}, "base_bits must be one of 0, 2, 3, 4; it is 8"),
        ({"base_block": 48}, "base_block must be a multiple of 32 up to 128; it is 48"),
        ({"base_block": 160}, "base_block must be a multiple of 32 up to 128; it is 160"),
        ({"input_bits": 8}, "input_bits must be one of 24, 16; it is 8"),
        ({"zero_points": 0}, "these attributes ask for 3 inputs; the node has 4"),
        ({"zero_points": 2}, "attribute zero_points must be 0 or 1; it is 2"),
        ({"base_bits": 0, "zero_points": 0}, "there must be a base, a pair or a residual; all are absent"),
        ({"base_bits": 0, "low_rank": 1, "rank": 1}, "zero_points must be 0 without a base; it is 1"),
    ],
    ids=str,
)
def test_bases_that_are_not_to_be_had(attributes: dict[str, int], words: str) -> None:
    given, inputs, _ = with_base(1, 96, 32, 3, 32, True)
    assert words in refuse(SPEC, given | attributes, inputs, ("y",))


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
        ({"low_rank": 0, "rank": 0, "residual": 0, "entries": 0}, "there must be a base, a pair or a residual"),
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
