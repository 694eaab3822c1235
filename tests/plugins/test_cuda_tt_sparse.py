"""The CUDA source of TTSparseLinear on the CPU: sizes that it refuses, columns that do not exist, and bases."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest

from edgekit.ops.registry import operator
from tests.plugins import host_library

SPEC = operator("TTSparseLinear")
GOOD = {"tokens": 3, "inputs": 40, "outputs": 9, "rank": 4, "entries": 6, "residual": 1, "group_kept": 2}
GOOD |= {"factor_bits": 0, "factor_block": 64, "value_bits": 0, "value_block": 64}
GOOD |= {"base_bits": 0, "base_block": 64}
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
        ({"base_bits": 3, "base_block": 192}, 1, None),
        ({"residual": 0, "entries": 0, "rank": 0, "base_bits": 2, "base_block": 32}, 0, None),
        ({"tokens": 0}, 0, "an axis of length 0"),
        ({"rank": -1}, 0, "a negative rank or number of entries"),
        ({"entries": 0}, 0, "entries without a residual, or none of one"),
        ({"residual": 0}, 0, "entries without a residual, or none of one"),
        ({"residual": 0, "entries": 0, "rank": 0}, 0, "neither a base, nor a pair, nor a residual"),
        *(
            (change, 0, "a base of other than 2, 3 or 4 bits, or blocks that are no multiple of 32")
            for change in (
                *({"base_bits": 5}, {"base_bits": 1}, {"base_bits": -2}, {"base_bits": 3, "base_block": 48}),
                *({"base_bits": 4, "base_block": 0}, {"base_bits": 4, "base_block": -32}),
            )
        ),
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
    sizes = (ctypes.c_int64 * 13)(*(GOOD | change).values())
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


TILE, CHUNK = 16, 32


def base_words(codes: np.ndarray, bits: int) -> np.ndarray:
    """The operand `base` of codes [outputs, inputs], both filled up, by the words of the specification."""
    tiles, chunks = codes.shape[0] // TILE, codes.shape[1] // CHUNK
    words = np.zeros((tiles, chunks, bits, TILE), np.int64)

    def put(word: int, bit: int, of: np.ndarray) -> None:
        words[:, :, word] |= of.astype(np.int64).reshape(tiles, TILE, chunks).transpose(0, 2, 1) << bit

    for byte in range(4):
        if bits != 3:
            for word in range(bits):
                for field in range(8 // bits):
                    put(word, 8 * byte + bits * field, codes[:, CHUNK // bits * word + 4 * field + byte :: CHUNK])
            continue
        for word in range(3):
            for field in range(2):
                put(word, 8 * byte + 3 * field, codes[:, 8 * word + 4 * field + byte :: CHUNK])
        for word, rest in enumerate((codes[:, 24 + byte :: CHUNK], codes[:, 28 + byte :: CHUNK])):
            put(word, 8 * byte + 6, rest & 3)
            put(2, 8 * byte + 6 + word, rest >> 2)
    return words.astype(np.uint32).view(np.int32).reshape(-1)


def base_zeros(zeros: np.ndarray, bits: int) -> np.ndarray:
    """The operand `base_zeros` of [filled outputs, blocks], what fills up the last word set."""
    halves = []
    for tile in zeros.reshape(-1, TILE, zeros.shape[1]):
        for block in tile.T:
            halves += [sum((int(zero) >> plane & 1) << row for row, zero in enumerate(block)) for plane in range(bits)]
    return np.array([*halves, *[0xFFFF] * (len(halves) % 2)], np.uint16).view(np.int32)


def base_case(
    bits: int, block: int, zero_points: int, shape: tuple[int, int, int], kind: type[np.floating[Any]]
) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]:
    """Attributes, operands and the expected outputs of a base alone; shape: of tokens, inputs, outputs."""
    tokens, inputs, outputs = shape
    draw = np.random.default_rng(bits + block + zero_points)
    rows, blocks = -(-outputs // TILE) * TILE, -(-inputs // block)
    codes = draw.integers(0, 2**bits, (rows, blocks * block))
    scales = (draw.standard_normal((rows, blocks)) / 2**bits).astype(np.float16)
    scales[outputs:] = np.nan
    zeros = draw.integers(0, 2**bits, (rows, blocks)) if zero_points else np.full((rows, blocks), 2 ** (bits - 1))
    x = draw.standard_normal((1, tokens, inputs)).astype(kind)
    found = {"x": x, "base": base_words(codes, bits)}
    found["base_scales"] = scales.reshape(-1, TILE, blocks).transpose(0, 2, 1).reshape(-1)
    if zero_points:
        found["base_zeros"] = base_zeros(zeros, bits)
    given = {"out_features": outputs, "low_rank": 0, "bias": 0, "residual": 0}
    attributes = SPEC.complete(given | {"base_bits": bits, "base_block": block, "zero_points": zero_points})
    weights = (codes - np.repeat(zeros, block, 1)) * np.repeat(scales.astype(np.float64), block, 1)
    return attributes, found, x.astype(np.float64) @ weights[:outputs, :inputs].T


@pytest.mark.parametrize("zero_points", [0, 1])
@pytest.mark.parametrize("block", [32, 64, 192])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_base_of_any_block_with_one_token_to_nine(bits: int, block: int, zero_points: int) -> None:
    """Several warps and a step that is not full; rows of x that begin at 16 bytes, and rows that do not."""
    for tokens, inputs in itertools.product(range(1, 10), (611, 640)):
        attributes, operands, expected = base_case(bits, block, zero_points, (tokens, inputs, 37), np.float64)
        np.testing.assert_allclose(host_library.tt_sparse_linear(attributes, operands), expected, 1e-11, 1e-11)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(("tokens", "inputs"), [(1, 640), (1, 33), (3, 328), (5, 641)])
def test_halves_times_a_base_are_summed_in_float32(bits: int, tokens: int, inputs: int) -> None:
    """Codes and inputs become float32 without rounding, so that what is left is the rounding of outputs."""
    attributes, operands, expected = base_case(bits, 64, 1, (tokens, inputs, 20), np.float16)
    found = host_library.tt_sparse_linear(attributes, operands)
    np.testing.assert_allclose(found.astype(np.float64), expected, 2**-11 + 1e-6, 1e-5)


def test_many_steps_of_every_warp() -> None:
    attributes, operands, expected = base_case(3, 96, 1, (1, 5000, 17), np.float64)
    np.testing.assert_allclose(host_library.tt_sparse_linear(attributes, operands), expected, 1e-11, 1e-11)


def test_a_scale_that_is_nan_makes_its_output_nan() -> None:
    attributes, operands, expected = base_case(3, 64, 1, (2, 200, 20), np.float64)
    operands["base_scales"].reshape(2, 4, TILE)[1, 3, 2] = np.nan  # output 18
    found = host_library.tt_sparse_linear(attributes, operands)
    assert np.isnan(found[..., 18]).all()
    np.testing.assert_allclose(np.delete(found, 18, -1), np.delete(expected, 18, -1), 1e-11, 1e-11)


def test_inputs_that_are_no_numbers_stay_in_their_token() -> None:
    attributes, operands, expected = base_case(4, 64, 0, (6, 200, 20), np.float64)
    operands["x"][0, 1, 7] = np.nan
    found = host_library.tt_sparse_linear(attributes, operands)
    assert np.isnan(found[0, 1]).all()
    np.testing.assert_allclose(np.delete(found, 1, 1), np.delete(expected, 1, 1), 1e-11, 1e-11)


@pytest.mark.parametrize(("operand", "bytes_off"), [("base", 4), ("base_scales", 2)])
def test_a_base_that_is_not_aligned_is_refused(operand: str, bytes_off: int) -> None:
    """Its loads of 16 and 8 bytes would end the whole process's use of a GPU."""
    attributes, operands, _ = base_case(3, 64, 0, (1, 64, 16), np.float32)
    arrays = operands | {"y": np.zeros((1, 1, 16), np.float32)}
    addresses = {name: array.ctypes.data for name, array in arrays.items()}
    addresses[operand] += bytes_off
    sizes = host_library.tt_sizes_of(attributes, operands)
    status = host_library.library("tt_sparse_linear").edgekit_tt_sparse_linear(
        0,
        (ctypes.c_int64 * len(sizes))(*(sizes[name] for name in host_library.TT_SIZES)),
        (ctypes.c_void_p * len(host_library.TT_TENSORS))(*map(addresses.get, host_library.TT_TENSORS)),
    )
    assert status == 1  # cudaErrorInvalidValue
