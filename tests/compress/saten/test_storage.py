from __future__ import annotations

import numpy as np
import pytest

from edgekit.compress.blockwise import quantize_blocks
from edgekit.compress.saten.storage import CODES, from_record, packed, stored, stored_bytes, unpacked
from edgekit.errors import ExportError


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("count", [1, 7, 8, 64, 100])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8])
def test_packing_is_one_long_number(bits: int, count: int) -> None:
    codes = np.random.default_rng(1).integers(0, 2**bits, count).astype(np.uint8)
    number = sum(int(code) << (bits * place) for place, code in enumerate(codes))
    data = packed(codes, bits)
    assert data.tobytes() == number.to_bytes(-(-count * bits // 8), "little")
    assert np.array_equal(unpacked(data, bits, count), codes)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_packing_is_that_of_block_quantisation(bits: int) -> None:
    quantized = quantize_blocks(values(5, 96), bits, 32)
    assert np.array_equal(packed(quantized.codes, bits), quantized.packed_codes().ravel())


@pytest.mark.parametrize("shape", [(3, 64), (5, 7, 3), (1,), (0,), (2, 100)])
@pytest.mark.parametrize("dtype", ["float16", *CODES])
def test_what_is_stored(dtype: str, shape: tuple[int, ...]) -> None:
    given = values(*shape)
    found = stored(given, dtype, block=32)
    back = found.values()
    assert back.shape == shape
    assert back.dtype == np.float32
    assert found.nbytes == sum(len(a.tobytes()) for a in found.arrays.values()) == stored_bytes(given.size, dtype, 32)
    assert np.array_equal(from_record(found.record(), found.arrays).values(), back)
    if dtype == "float16":
        assert np.array_equal(back, given.astype(np.float16).astype(np.float32))
    elif given.size:
        # Rounding to nearest over the largest magnitude errs by half a step at most, and the search is not worse.
        steps = np.zeros(-(-given.size // 32) * 32, np.float32)
        steps[: given.size] = given.ravel()
        largest = np.abs(steps.reshape(-1, 32)).max(1)
        bound = np.sqrt((32 * (largest / 2 ** (CODES[dtype] - 1)) ** 2).sum())
        assert np.linalg.norm(back - given) <= bound


def test_importance_is_heeded() -> None:
    given, weights = values(4, 64), np.ones((4, 64), np.float32)
    weights[:, :8] = 1000
    plain = (stored(given, "int4").values() - given)[:, :8]
    weighed = (stored(given, "int4", importance=weights).values() - given)[:, :8]
    assert np.linalg.norm(weighed) < 0.8 * np.linalg.norm(plain)


def test_refusals() -> None:
    for call in (lambda: stored(values(3), "int5"), lambda: stored_bytes(3, "bfloat16")):
        with pytest.raises(ExportError, match="was asked for"):
            call()
    for value in (1e5, float("inf"), float("nan")):
        with pytest.raises(ExportError, match="65504"):
            stored(np.array([1.0, value], np.float32), "float16")
