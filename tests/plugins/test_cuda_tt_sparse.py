"""The CUDA source of TTSparseLinear on the CPU: sizes that it refuses, and columns that do not exist."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from edgekit.ops.registry import operator
from tests.plugins import host_library

SPEC = operator("TTSparseLinear")
GOOD = {"tokens": 3, "inputs": 40, "outputs": 9, "rank": 4, "entries": 6}


@pytest.fixture(autouse=True)
def _compiler() -> None:
    if reason := host_library.missing_compiler():
        pytest.skip(reason)


@pytest.mark.parametrize(
    ("change", "element", "words"),
    [
        ({}, 0, None),
        ({"rank": 0}, 1, None),
        ({"inputs": 65536}, 2, None),
        ({"tokens": 4 * 65535}, 0, None),
        ({"tokens": 0}, 0, "an axis of length 0"),
        ({"rank": -1}, 0, "a negative rank"),
        ({"entries": 5}, 0, "an odd number of entries"),
        ({"inputs": 65537}, 0, "columns of 16 bits do not reach all inputs"),
        ({"tokens": 4 * 65535 + 1}, 0, "too many tokens for one launch"),
        ({}, 4, "the element type is not float32, float16 or bfloat16"),
    ],
)
def test_sizes_that_cannot_be_run(change: dict[str, int], element: int, words: str | None) -> None:
    sizes = (ctypes.c_int64 * 5)(*(GOOD | change).values())
    found = host_library.library("tt_sparse_linear").edgekit_tt_sparse_linear_problem(element, sizes)
    assert found == (words and words.encode())


@pytest.mark.parametrize("name", ["decode-67-to-131", "prefill-19"])
def test_a_column_beyond_the_inputs_makes_its_output_nan(name: str) -> None:
    """All of its tokens, and no other output; memory there is not read (the last input is the end of x)."""
    inputs = next(case for case in SPEC.cases() if case.name == name).inputs("float32")
    expected = host_library.tt_sparse_linear(inputs)
    inputs["columns"].view("<u2")[5, 1] = inputs["x"].shape[2]
    found = host_library.tt_sparse_linear(inputs)
    assert np.isnan(found[..., 5]).all()
    np.testing.assert_array_equal(np.delete(found, 5, -1), np.delete(expected, 5, -1))
