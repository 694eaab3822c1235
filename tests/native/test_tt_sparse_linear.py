"""edgekit::TTSparseLinear by the native CPU library: what it refuses, and any number of tokens and threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.ops.registry import operator
from edgekit.ops.tt_sparse_rows import packed_rows
from tests.native.test_refusals import refuse
from tests.ops.backends import onnx_native

SPEC = operator("TTSparseLinear")
WHOLE = SPEC.complete({"low_rank": 1, "bias": 1})

pytestmark = pytest.mark.usefixtures("library")


def drawn(tokens: int, inputs: int = 21, outputs: int = 10, rank: int = 3) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(tokens)
    kept = draw.random((outputs, inputs)) < 0.3
    columns, values = packed_rows(np.where(kept, draw.standard_normal(kept.shape), 0).astype("f"))
    return {
        "x": draw.standard_normal((1, tokens, inputs)).astype("f"),
        "a": draw.standard_normal((rank, inputs)).astype("f"),
        "b": draw.standard_normal((rank, outputs)).astype("f"),
        "columns": columns,
        "values": values,
        "bias": draw.standard_normal(outputs).astype("f"),
    }


def product(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """In float64, the columns taken out of their bytes."""
    columns = inputs["columns"].astype("<i4").view("<u2")
    weight = inputs["b"].T.astype("d") @ inputs["a"]
    for o, row in enumerate(columns):
        weight[o, row] += inputs["values"][o]
    product: np.ndarray = inputs["x"] @ weight.T + inputs["bias"]
    return product


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2, 3, 15, 16, 17, 63, 64, 65, 130])
def test_any_number_of_tokens(tokens: int, threads: int) -> None:
    """Around the limits of gathering, of a vector, and of what is done at once."""
    inputs = drawn(tokens, 200, 333, 37)
    y = onnx_native.run(SPEC, WHOLE, inputs, False, threads)["y"]
    np.testing.assert_allclose(y, product(inputs), rtol=0, atol=2e-5 * np.abs(y).max())


def test_no_tokens_give_no_outputs() -> None:
    assert onnx_native.run(SPEC, WHOLE, drawn(0), False)["y"].shape == (1, 0, 10)


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize(("entry", "column"), [(0, 21), (1, 65535)])
def test_a_column_beyond_the_inputs(tokens: int, entry: int, column: int) -> None:
    inputs = drawn(tokens)
    inputs["columns"].view("<u2")[7, entry] = column
    assert f"columns must be inputs, 0 to 20; row 7 has column {column}" in refuse(SPEC, WHOLE, inputs)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "entries": ({"columns": np.zeros((10, 1), "i4")}, "columns must have Z/2 entries"),
    "type-of-columns": ({"columns": np.zeros((10, 6), "i8")}, "input columns must be int32; it is int64"),
    "rank": ({"b": np.zeros((4, 10), "f")}, "axis R of b must be that of a; it is 4, there it is 3"),
    "inputs": ({"a": np.zeros((3, 20), "f")}, "axis K of a must be that of x; it is 20, there it is 21"),
    "outputs": ({"bias": np.zeros(9, "f")}, "axis O of bias must be that of b; it is 9, there it is 10"),
    "type": ({"values": np.zeros((10, 12), "d")}, "input values must be float32; it is float64"),
    "no-rank": ({"a": np.zeros((0, 21), "f"), "b": np.zeros((0, 10), "f")}, "O, Z and R at least 1"),
    "no-entries": (
        {"values": np.zeros((10, 0), "f"), "columns": np.zeros((10, 0), "i4")},
        "K must be 1 to 65536, O, Z and R at least 1; they are [21, 10, 0, 3]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_operands_that_contradict_each_other(name: str) -> None:
    change, words = BAD[name]
    assert words in refuse(SPEC, WHOLE, drawn(2) | change)


def test_a_residual_alone_without_entries() -> None:
    empty = {"values": np.zeros((10, 0), "f"), "columns": np.zeros((10, 0), "i4")}
    inputs = {name: value for name, value in (drawn(2) | empty).items() if name not in ("a", "b")}
    assert "Z and R at least 1" in refuse(SPEC, WHOLE | {"low_rank": 0}, inputs)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"factor_bits": 4}, "factor_bits must be 0; it is 4"),
        ({"value_bits": 8}, "value_bits must be 0; it is 8"),
        ({"low_rank": 2}, "attribute low_rank must be 0 or 1; it is 2"),
        ({"bias": 0}, "low_rank=1 bias=0 asks for 5 inputs; the node has 6"),
        ({"low_rank": 0}, "low_rank=0 bias=1 asks for 4 inputs; the node has 6"),
    ],
    ids=str,
)
def test_attributes_that_are_not_to_be_had(attributes: dict[str, int], words: str) -> None:
    assert words in refuse(SPEC, WHOLE | attributes, drawn(1), ("y",))
