"""Comparing the outputs of a form with those of the reference."""

from __future__ import annotations

import numpy as np

from edgekit.ops.spec import Attributes, Case, OpSpec, Tolerance
from tests.ops.arrays import array_from_tensor, tensor_from_array
from tests.ops.in_place import Arrays, in_place_by_growing


def expected_outputs(spec: OpSpec, case: Case, inputs: Arrays) -> Arrays:
    """The reference in float64 on these inputs. NaN where NaN memory belongs to the row."""
    wide = {name: x.astype(np.float64) if x.dtype.kind != "i" else x for name, x in inputs.items()}

    def grow(given: Arrays) -> Arrays:
        outputs = spec.reference(case.attributes, {name: tensor_from_array(value) for name, value in given.items()})
        return {name: array_from_tensor(value) for name, value in outputs.items()}

    return in_place_by_growing(spec, wide, grow) if case.in_place else grow(wide)


def assert_close(name: str, got: np.ndarray, expected: np.ndarray, tolerance: Tolerance) -> None:
    """Where `expected` is a number, `got` is near it; both measures are reported on failure."""
    assert got.shape == expected.shape, f"{name}: shape {got.shape}, expected {expected.shape}"
    known = ~np.isnan(expected)
    a, b = got.astype(np.float64)[known], expected[known]
    assert np.isfinite(a).all(), f"{name}: {np.count_nonzero(~np.isfinite(a))} of {a.size} numbers are not finite"
    if not b.any():
        assert not a.any(), f"{name}: expected zeros"
        return
    error = float(np.abs(a - b).max() / np.abs(b).max())
    cosine = 1 - float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) if a.any() else 1.0
    assert error <= tolerance.maximum, f"{name}: error {error:.2e} of the largest, allowed {tolerance.maximum:.1e}"
    assert cosine <= tolerance.cosine, f"{name}: 1 - cosine {cosine:.2e}, allowed {tolerance.cosine:.1e}"


def assert_rest_untouched(spec: OpSpec, attributes: Attributes, inputs: Arrays, outputs: Arrays) -> None:
    """In place, slots before and after the new rows hold the same bits as before."""
    total = inputs["attention_mask"].shape[1]
    new = next(array.shape[1] for name, array in inputs.items() if name in ("new", "b_k"))
    for operand in spec.active_outputs(attributes):
        if operand.past:
            before, after = inputs[operand.past], outputs[operand.name]
            for part in (slice(0, total - new), slice(total, None)):
                np.testing.assert_array_equal(
                    np.ascontiguousarray(after[:, part]).view(np.uint8),
                    np.ascontiguousarray(before[:, part]).view(np.uint8),
                    err_msg=f"{operand.name} outside of the new rows",
                )
