"""plugins/common/core.h: conversions against ml_dtypes, softmax states, splits and the cache rule."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.plugins.host_library import compile_source, missing_compiler

GROW, IN_PLACE, INVALID = 0, 1, 2


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if reason := missing_compiler():
        pytest.skip(reason)
    target = tmp_path_factory.mktemp("core") / "core.so"
    compile_source(Path(__file__).with_name("core_probe.cpp"), target, ("-shared", "-fPIC", "-std=c++17"))
    loaded = ctypes.CDLL(str(target))
    loaded.log_sum_exp.restype = ctypes.c_double
    loaded.rule.argtypes = [ctypes.c_long] * 3
    return loaded


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_16_bit_number_widens_exactly(core: ctypes.CDLL, name: str) -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16 if name == "bfloat16" else np.float16)
    wide = np.empty(numbers.size, np.float32)
    getattr(core, f"widen_{name}")(pointer(numbers), pointer(wide), long(numbers.size))
    np.testing.assert_array_equal(wide, numbers.astype(np.float32))
    assert (np.signbit(wide) == np.signbit(numbers.astype(np.float32)))[~np.isnan(wide)].all()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_narrowing_rounds_to_nearest_even(core: ctypes.CDLL, name: str) -> None:
    """Every exponent and sign, mantissas at and beside the ties."""
    kind = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else np.float16)
    tops = np.arange(1 << 16, dtype=np.uint32) << 16
    ends = np.array([0, 1, 0xFFF, 0x1000, 0x1001, 0x2000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    numbers = (tops[:, None] | ends).reshape(-1).view(np.float32)
    narrow = np.empty(numbers.size, np.uint16)
    getattr(core, f"narrow_{name}")(pointer(numbers), pointer(narrow), long(numbers.size))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = numbers.astype(kind)
    unknown = np.isnan(numbers)
    np.testing.assert_array_equal(narrow[~unknown], expected.view(np.uint16)[~unknown])
    assert np.isnan(narrow.view(kind)[unknown].astype(np.float32)).all()


@pytest.mark.parametrize("splits", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("block", [1, 4, 8])
def test_merged_softmax_states_ignore_where_the_cuts_are(core: ctypes.CDLL, splits: int, block: int) -> None:
    """With whole blocks and splits of -inf, first, last and between."""
    scores = np.random.default_rng(0).standard_normal(53) * 30
    for hidden in (slice(0, 0), slice(0, 24), slice(30, 53), slice(8, 45)):
        some = scores.copy()
        some[hidden] = -np.inf
        largest = some.max()
        expected = largest + np.log(np.exp(some - largest).sum())
        found = core.log_sum_exp(pointer(some), some.size, block, splits)
        assert found == pytest.approx(expected, rel=1e-14)


def test_splits_cover_every_slot_once_at_multiples_of_the_unit(core: ctypes.CDLL) -> None:
    for slots in (1, 4, 31, 32, 33, 100, 257):
        for unit in (1, 4, 32):
            for splits in (1, 2, 3, 8, 40):
                cuts = [core.first_of_split(slots, splits, unit, i) for i in range(splits + 1)]
                assert cuts[0] == 0
                assert cuts[-1] == slots
                assert cuts == sorted(cuts)
                assert all(cut % unit == 0 for cut in cuts if cut != slots)
                widths = [b - a for a, b in itertools.pairwise(cuts)]
                assert max(widths) <= (-(-slots // unit) // splits + 1) * unit


def test_split_count_fills_the_blocks_but_makes_no_empty_split(core: ctypes.CDLL) -> None:
    assert core.number_of_splits(16384, 128, 1, 64) == 64
    assert core.number_of_splits(16384, 128, 8, 64) == 8
    assert core.number_of_splits(300, 128, 1, 64) == 3
    assert core.number_of_splits(16384, 128, 100, 64) == 1
    assert core.number_of_splits(1, 128, 1, 64) == 1


def test_cache_rule(core: ctypes.CDLL) -> None:
    assert core.rule(64, 65, 1) == GROW
    assert core.rule(0, 70, 70) == GROW
    assert core.rule(65, 65, 1) == IN_PLACE
    assert core.rule(100, 65, 1) == IN_PLACE
    assert core.rule(63, 65, 1) == INVALID
    assert core.rule(0, 65, 66) == INVALID
