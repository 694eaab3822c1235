"""edgekit::TPAAppend by the native CPU library."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.ops.registry import operator
from tests.native.oracle import DTYPES
from tests.ops.backends import onnx_native

SPEC = operator("TPAAppend")

pytestmark = pytest.mark.usefixtures("library")


def rows(dtype: str, *shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("past", "new"), [(0, 1), (5, 1), (7, 70), (3000, 2)])
def test_grows(dtype: str, past: int, new: int) -> None:
    old, fresh = rows(dtype, 2, past, 3, 47), rows(dtype, 2, new, 3, 47)
    inputs = {"past": old, "new": fresh, "attention_mask": np.ones((2, past + new), np.int64)}
    found = onnx_native.run(SPEC, {}, inputs, False)["present"]
    np.testing.assert_array_equal(found.astype("d"), np.concatenate((old, fresh), 1).astype("d"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_place", [True, False])
def test_writes_into_a_buffer(dtype: str, in_place: bool) -> None:
    """Also where the present is another buffer: then it is a copy."""
    old, fresh = rows(dtype, 3, 40, 2, 5), rows(dtype, 3, 4, 2, 5)
    old[:, 20:] = np.nan
    inputs = {"past": old, "new": fresh, "attention_mask": np.ones((3, 24), np.int64)}
    found = onnx_native.run(SPEC, {}, inputs, in_place)["present"].astype("d")
    expected = old.astype("d")
    expected[:, 20:24] = fresh.astype("d")
    np.testing.assert_array_equal(found, expected)
