"""Relative errors of matrices and of their rows."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.parity.weights import relative_errors


def test_equal_matrices() -> None:
    matrix = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    assert relative_errors(matrix, matrix.copy()) == (0.0, 0.0)
    assert relative_errors(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)) == (0.0, 0.0)


def test_one_wrong_row() -> None:
    original = np.tile(np.float32([3, 4]), (4, 1))
    found = original.copy()
    found[2] *= -1
    total, row = relative_errors(found, original)
    assert row == pytest.approx(2.0)
    assert total == pytest.approx(1.0)  # √(10² / (4 · 5²))


def test_a_row_of_zeros_is_measured_by_the_others() -> None:
    original = np.tile(np.float32([3, 4]), (4, 1))
    original[1] = 0
    found = original.copy()
    found[1] = [0.0, 0.0375]  # the mean row norm is 3.75, one percent of it 0.0375
    assert relative_errors(found, original)[1] == pytest.approx(1.0)


def test_nan_is_not_hidden() -> None:
    original = np.ones((2, 2), np.float32)
    found = original.copy()
    found[0, 0] = np.nan
    assert all(not error <= 1e9 for error in relative_errors(found, original))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same shape"):
        relative_errors(np.zeros((2, 3)), np.zeros((3, 2)))
