"""The CUDA source of TTSparseLinear on the CPU: sizes that it refuses, and columns that do not exist."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from edgekit.ops.registry import operator
from tests.plugins import host_library

SPEC = operator("TTSparseLinear")
GOOD = {"tokens": 3, "inputs": 40, "outputs": 9, "rank": 4, "entries": 6, "residual": 1, "group_kept": 2}
GOOD |= {"factor_bits": 0, "factor_block": 64, "value_bits": 0, "value_block": 64}
GROUPS = {"residual": 3, "entries": 9 * 20}


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
        (GROUPS, 0, None),
        ({"residual": 0, "entries": 0}, 0, None),
        ({"factor_bits": 4, "value_bits": 8}, 0, None),
        ({"residual": 2, "inputs": 65537}, 0, None),
        ({"tokens": 0}, 0, "an axis of length 0"),
        ({"rank": -1}, 0, "a negative rank or number of entries"),
        ({"entries": 0}, 0, "entries without a residual, or none of one"),
        ({"residual": 0}, 0, "entries without a residual, or none of one"),
        ({"residual": 0, "entries": 0, "rank": 0}, 0, "neither a pair nor a residual"),
        ({"residual": 4}, 0, "a residual of no known kind"),
        ({"inputs": 65537}, 0, "columns of 16 bits do not reach all inputs"),
        (GROUPS | {"inputs": 42}, 0, "groups that are not of 4 inputs"),
        (GROUPS | {"group_kept": 5}, 0, "groups that are not of 4 inputs"),
        (GROUPS | {"entries": 9 * 20 + 1}, 0, "another number of entries than the groups have"),
        ({"value_bits": 3}, 0, "numbers of other than 16, 8 or 4 bits, or blocks that are no multiple of 16"),
        (
            {"factor_bits": 4, "factor_block": 24},
            0,
            "numbers of other than 16, 8 or 4 bits, or blocks that are no multiple of 16",
        ),
        ({"tokens": 4 * 65535 + 1}, 0, "too many tokens for one launch"),
        ({}, 4, "the element type is not float32, float16 or bfloat16"),
    ],
)
def test_sizes_that_cannot_be_run(change: dict[str, int], element: int, words: str | None) -> None:
    sizes = (ctypes.c_int64 * 11)(*(GOOD | change).values())
    found = host_library.library("tt_sparse_linear").edgekit_tt_sparse_linear_problem(element, sizes)
    assert found == (words and words.encode())


def case_named(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    case = next(case for case in SPEC.cases() if case.name == name)
    return case.attributes, case.inputs("float32")


@pytest.mark.parametrize("name", ["decode-67-to-131", "prefill-19"])
def test_a_column_beyond_the_inputs_makes_its_output_nan(name: str) -> None:
    """All of its tokens, and no other output; memory there is not read (the last input is the end of x)."""
    attributes, inputs = case_named(name)
    expected = host_library.tt_sparse_linear(attributes, inputs)
    inputs["positions"].view("<u2")[inputs["starts"][6]] = inputs["x"].shape[2]
    found = host_library.tt_sparse_linear(attributes, inputs)
    assert np.isnan(found[..., 6]).all()
    np.testing.assert_array_equal(np.delete(found, 6, -1), np.delete(expected, 6, -1))


@pytest.mark.parametrize("name", ["bitmap-decode", "prefill-2-by-71"])
@pytest.mark.parametrize("more", [True, False], ids=["more", "fewer"])
def test_a_row_with_another_number_of_bits_is_nan(name: str, more: bool) -> None:
    attributes, inputs = case_named(name)
    expected, width = host_library.tt_sparse_linear(attributes, inputs), inputs["x"].shape[2]
    bits = np.unpackbits(inputs["positions"].view(np.uint8), bitorder="little")
    row = bits[6 * width : 7 * width]
    row[np.flatnonzero(row != more)[-1]] ^= 1
    inputs["positions"] = np.packbits(bits, bitorder="little").view(np.int32)
    found = host_library.tt_sparse_linear(attributes, inputs)
    assert np.isnan(found[..., 6]).all()
    np.testing.assert_array_equal(np.delete(found, 6, -1), np.delete(expected, 6, -1))


@pytest.mark.parametrize("start", [-1, 10**6])
def test_a_row_that_starts_nowhere_is_nan(start: int) -> None:
    attributes, inputs = case_named("decode-67-to-131")
    inputs["starts"][6] = start
    found = host_library.tt_sparse_linear(attributes, inputs)
    assert np.isnan(found[..., 6]).all()
    assert np.isfinite(np.delete(found, [5, 6], -1)).all()
