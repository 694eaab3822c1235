from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from edgekit.rewrite.weights import Weight, concatenated


class Loads:
    """Makes an array and counts how often."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.count = array, 0

    def __call__(self) -> np.ndarray:
        self.count += 1
        return self.array

    def weight(self, name: str) -> Weight:
        weight = Weight(self.array.shape, self.array.dtype, self, name)
        weight.sources = (name,)
        return weight


def array(rows: int, columns: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + rows * columns, dtype=np.float32).reshape(rows, columns)


def test_nothing_is_made_before_it_is_asked_for() -> None:
    loads = Loads(array(2, 3))
    weight = concatenated([loads.weight("a").transposed(), loads.weight("b").transposed()], axis=1).cast("float16")
    assert (weight.shape, weight.dtype, weight.nbytes) == ((3, 4), np.float16, 24)
    assert loads.count == 0
    weight.load()
    assert loads.count == 2


def test_transposed() -> None:
    weight = Loads(array(2, 3)).weight("a")
    other = weight.transposed()
    assert (other.shape, other.sources) == ((3, 2), ("a",))
    assert np.array_equal(other.load(), array(2, 3).T)
    assert other.load().flags.c_contiguous
    assert other.transposed() is weight
    assert other.key != weight.key
    assert other.key == Loads(array(2, 3)).weight("a").transposed().key


def test_cast() -> None:
    weight = Loads(array(2, 3)).weight("a")
    assert weight.cast("float32") is weight
    half = weight.cast(np.float16)
    assert half.load().dtype == np.float16
    assert np.array_equal(half.load(), array(2, 3))
    assert half.sources == ("a",)
    assert half.cast("float32").load().dtype == np.float32
    assert len({weight.key, half.key, weight.cast(ml_dtypes.bfloat16).key, half.cast("float32").key}) == 4


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_concatenated(axis: int, transposed: bool) -> None:
    shapes = [(2, 3), (4, 3)] if (axis == 0) != transposed else [(3, 2), (3, 4)]
    arrays = [array(*shape, start=100 * i) for i, shape in enumerate(shapes)]
    weights = [Loads(values).weight(f"w{i}") for i, values in enumerate(arrays)]
    if transposed:
        arrays, weights = [values.T for values in arrays], [weight.transposed() for weight in weights]
    joined = concatenated(weights, axis)
    expected = np.concatenate(arrays, axis)
    assert joined.shape == expected.shape
    assert np.array_equal(joined.load(), expected)
    assert joined.sources == ("w0", "w1")


def test_the_order_and_the_axis_are_part_of_the_key() -> None:
    a, b = Loads(array(2, 2)).weight("a"), Loads(array(2, 2)).weight("b")
    keys = {concatenated([a, b]).key, concatenated([b, a]).key, concatenated([a, b], 1).key}
    assert len(keys) == 3
    assert concatenated([a, b]).key in keys


def test_matrices_side_by_side_that_are_stored_transposed_are_stacked_as_stored() -> None:
    """So that their quantised form, which is stored by rows, can be found by their sources."""
    parts = [Loads(array(2, 3)).weight("a").transposed(), Loads(array(4, 3)).weight("b").transposed()]
    stacked = concatenated(parts, axis=1).transposed()
    assert stacked.shape == (6, 3)
    assert stacked.key == concatenated([part.transposed() for part in parts]).key


def test_weights_without_a_key_are_all_different() -> None:
    assert Weight((1,), np.float32, lambda: np.zeros(1)).key != Weight((1,), np.float32, lambda: np.zeros(1)).key


@pytest.mark.parametrize("made", [np.zeros((3, 2), np.float32), np.zeros((2, 3), np.float16)])
def test_an_array_that_is_not_as_declared_is_an_error(made: np.ndarray) -> None:
    with pytest.raises(AssertionError, match=r"declared float32\(2, 3\), made"):
        Weight((2, 3), np.float32, lambda: made).load()
