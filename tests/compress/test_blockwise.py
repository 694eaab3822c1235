"""Block quantisation against plain rounding, and its stored form against ONNX Runtime's own kernel."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.compress.blockwise import BlockQuantized, blocks_of, joined, quantize_blocks, with_offset_columns


def matrix(kind: str, rows: int = 40, columns: int = 96) -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((rows, columns)).astype(np.float32)
    if kind == "outliers":
        values[rng.random(values.shape) < 0.03] *= 12
    if kind == "one-sided":
        values = np.abs(values) + 3
    return values


def plain(values: np.ndarray, bits: int, block: int, symmetric: bool) -> np.ndarray:
    """Round to nearest: over the range of the values, or with the largest magnitude at −2^(b−1)."""
    blocks = blocks_of(values, block).astype(np.float64)
    low, high = np.minimum(blocks.min(-1, keepdims=True), 0), np.maximum(blocks.max(-1, keepdims=True), 0)
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    if symmetric:
        scale = np.where(-low > high, low, high) / -middle
        zero = np.full_like(scale, middle)
    else:
        scale = (high - low) / top
        zero = np.rint(-low / scale)
    codes = np.clip(np.rint(blocks / scale) + zero, 0, top)
    return ((codes - zero) * scale).reshape(len(values), -1)[:, : values.shape[1]]


def block_errors(values: np.ndarray, other: np.ndarray, block: int) -> np.ndarray:
    return (blocks_of((values - other).astype(np.float32), block) ** 2).sum(-1)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["normal", "outliers", "one-sided"])
def test_no_block_is_worse_than_rounded_to_nearest(kind: str, bits: int, symmetric: bool) -> None:
    values = matrix(kind)
    mine = block_errors(values, quantize_blocks(values, bits, 32, symmetric=symmetric).dequantized(), 32)
    nearest = block_errors(values, plain(values, bits, 32, symmetric), 32)
    assert (mine <= nearest * (1 + 1e-3) + 1e-9).all()
    if bits < 8:
        assert mine.sum() < (0.98 if kind == "outliers" else 0.95) * nearest.sum()


@pytest.mark.parametrize(("bits", "zero"), [(4, 5), (4, 8), (8, 100), (2, 1), (3, 2)])
def test_values_on_a_grid_are_exact(bits: int, zero: int) -> None:
    codes = np.random.default_rng(2).integers(0, 2**bits, (20, 3, 32))
    codes[..., 0], codes[..., 1] = 0, 2**bits - 1
    scales = 2.0 ** np.random.default_rng(3).integers(-6, 3, (20, 3, 1))
    values = ((codes - zero) * scales).reshape(20, 96).astype(np.float32)
    assert np.array_equal(quantize_blocks(values, bits, 32).dequantized(), values)


def test_3_bits_are_not_packed_by_the_byte() -> None:
    quantized = quantize_blocks(matrix("normal"), 3, 32)
    for pack in (quantized.packed_codes, quantized.packed_zero_points):
        with pytest.raises(ValueError, match="3 bits"):
            pack()


def test_zeros_stay_zeros() -> None:
    for symmetric in (False, True):
        assert not quantize_blocks(np.zeros((3, 64), np.float32), 4, 32, symmetric=symmetric).dequantized().any()


@pytest.mark.parametrize("bits", [4, 8])
def test_symmetric_has_the_middle_as_its_zero_point(bits: int) -> None:
    values = matrix("one-sided")
    assert (quantize_blocks(values, bits, 32, symmetric=True).zero_points == 2 ** (bits - 1)).all()
    assert not (quantize_blocks(values, bits, 32).zero_points == 2 ** (bits - 1)).any()


def test_more_rows_than_one_task_takes() -> None:
    values = matrix("normal", rows=600)
    whole = quantize_blocks(values, 4, 32)
    assert np.array_equal(whole.dequantized()[500:], quantize_blocks(values[500:], 4, 32).dequantized())


def test_inputs_that_are_not_whole_blocks() -> None:
    values = matrix("normal", columns=70)
    quantized = quantize_blocks(values, 4, 32)
    assert quantized.codes.shape == (40, 3, 32)
    assert quantized.inputs == 70
    assert quantized.dequantized().shape == (40, 70)
    # Padding holds what the zero point means, which is 0.
    assert (quantized.codes[:, 2, 6:] == quantized.zero_points[:, 2, None]).all()
    assert np.array_equal(quantized.dequantized()[:, :64], quantize_blocks(values[:, :64], 4, 32).dequantized())


@pytest.mark.parametrize("columns", [192, 200, 260])
def test_smaller_blocks_hold_the_same_values(columns: int) -> None:
    quantized = quantize_blocks(matrix("outliers", columns=columns), 3, 192)
    cut = quantized.in_smaller_blocks(64)
    assert cut.codes.shape == (40, -(-columns // 64), 64)
    assert cut.scales.shape == cut.zero_points.shape == cut.codes.shape[:2]
    assert (cut.bits, cut.inputs) == (3, columns)
    assert np.array_equal(cut.dequantized(), quantized.dequantized())
    offsets = with_offsets()
    assert np.array_equal(offsets.in_smaller_blocks(16).dequantized(), offsets.dequantized())
    with pytest.raises(ValueError, match="not whole ones of 80"):
        quantized.in_smaller_blocks(80)


def test_importance_moves_the_error_to_where_it_matters_less() -> None:
    values = matrix("normal")
    importance = np.where(np.arange(96) % 4 == 0, 100.0, 1.0).astype(np.float32)

    def weighted(quantized: BlockQuantized) -> float:
        return float((importance * (values - quantized.dequantized()) ** 2).sum())

    alike = quantize_blocks(values, 4, 32)
    assert weighted(quantize_blocks(values, 4, 32, importance=importance)) < 0.9 * weighted(alike)
    constant = quantize_blocks(values, 4, 32, importance=np.full(96, 7, np.float32))
    assert np.array_equal(constant.codes, alike.codes)


def test_codes_are_packed_from_the_low_bits_up() -> None:
    codes = np.arange(16, dtype=np.uint8).reshape(1, 1, 16)
    quantized = BlockQuantized(codes, np.ones((1, 3), np.float32), np.array([[3, 9, 7]], np.uint8), 4, 16)
    assert quantized.packed_codes().tolist() == [[[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]]]
    assert quantized.packed_zero_points().tolist() == [[0x93, 0x07]]
    two = BlockQuantized(codes % 4, np.ones((1, 1), np.float32), np.array([[3]], np.uint8), 2, 16)
    assert two.packed_codes().tolist() == [[[0b11100100] * 4]]


def test_rows_and_joined_undo_each_other() -> None:
    quantized = with_offsets()
    parts = [quantized.rows(0, 3), quantized.rows(3, 10), quantized.rows(10, 40)]
    assert np.array_equal(parts[1].dequantized(), quantized.dequantized()[3:10])
    again = joined(parts)
    assert np.array_equal(again.dequantized(), quantized.dequantized())
    assert (again.bits, again.inputs) == (4, 96)
    bare = quantize_blocks(matrix("normal"), 4, 32)
    assert joined([bare.rows(0, 3), bare.rows(3, 40)]).offsets is None
    with pytest.raises(ValueError, match="no offsets"):
        joined([quantized, bare])


def with_offsets(bits: int = 4) -> BlockQuantized:
    plain = quantize_blocks(matrix("normal"), bits, 32)
    offsets = np.random.default_rng(4).uniform(-0.5, 0.5, plain.scales.shape).astype(np.float32) * np.abs(plain.scales)
    return BlockQuantized(plain.codes, plain.scales, plain.zero_points, bits, 96, offsets)


def test_offsets_are_added_to_each_weight_of_their_block() -> None:
    quantized = with_offsets()
    assert quantized.offsets is not None
    bare = BlockQuantized(quantized.codes, quantized.scales, quantized.zero_points, 4, 96)
    assert np.allclose(quantized.dequantized() - bare.dequantized(), quantized.offsets.repeat(32, axis=1), atol=1e-6)


def test_offset_columns_multiply_block_sums() -> None:
    quantized = with_offsets(8)
    extended = with_offset_columns(quantized)
    assert extended.inputs == 96 + 3
    x = np.random.default_rng(6).standard_normal((5, 96)).astype(np.float32)
    appended = np.concatenate([x, x.reshape(5, 3, 32).sum(-1)], axis=1)
    expected = x @ quantized.dequantized().T
    np.testing.assert_allclose(appended @ extended.dequantized().T, expected, atol=1e-3 * float(np.abs(expected).max()))
    assert not np.allclose(x @ extended.dequantized()[:, :96].T, expected, atol=1e-2)
    assert quantized.nbytes() == extended.nbytes() > quantize_blocks(matrix("normal"), 8, 32).nbytes()


def test_offset_columns_need_offsets_and_whole_blocks() -> None:
    with pytest.raises(ValueError, match="no offsets"):
        with_offset_columns(quantize_blocks(matrix("normal"), 4, 32))
    ragged = quantize_blocks(matrix("normal", columns=70), 4, 32)
    with pytest.raises(ValueError, match="whole blocks of 32"):
        with_offset_columns(
            BlockQuantized(ragged.codes, ragged.scales, ragged.zero_points, 4, 70, np.zeros_like(ragged.scales))
        )


def test_stored_bytes() -> None:
    quantized = quantize_blocks(matrix("normal"), 4, 32)
    arrays = (quantized.packed_codes(), quantized.scales)
    # Zero points of rows with an odd number of blocks waste half a byte, which the count leaves out.
    assert quantized.nbytes() == sum(array.nbytes for array in arrays) + 40 * 3 // 2


def product(quantized: BlockQuantized, x: np.ndarray, accuracy_level: int) -> np.ndarray:
    """x @ Wᵀ by MatMulNBits."""
    stored = {"codes": quantized.packed_codes(), "scales": quantized.scales, "zeros": quantized.packed_zero_points()}
    block, rows = quantized.codes.shape[2], len(quantized.codes)
    node = helper.make_node(
        "MatMulNBits", ["x", *stored], ["y"], domain="com.microsoft", K=quantized.inputs, N=rows,
        bits=quantized.bits, block_size=block, accuracy_level=accuracy_level,
    )  # fmt: skip
    x_info, y_info = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    constants = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph([node], "product", [x_info], [y_info], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("columns", [96, 70])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_kernel_multiplies_by_what_the_codes_stand_for(bits: int, columns: int, symmetric: bool) -> None:
    quantized = quantize_blocks(matrix("normal", columns=columns), bits, 32, symmetric=symmetric)
    x = np.random.default_rng(7).standard_normal((6, columns)).astype(np.float32)
    expected = x @ quantized.dequantized().T
    np.testing.assert_allclose(product(quantized, x, 1), expected, atol=1e-4)
    # At level 4 each block of x is rounded to int8: an error of at most half a step for each of its inputs.
    step = np.abs(blocks_of(x, 32)).max(-1) / 127
    weights = np.abs(blocks_of(quantized.dequantized(), 32)).sum(-1)
    bound = 0.5 * step @ weights.T + 1e-4
    assert (np.abs(product(quantized, x, 4) - expected) <= bound).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_the_kernel_multiplies_by_offsets_too(bits: int) -> None:
    quantized = with_offsets(bits)
    extended = quantized.with_offset_columns()
    x = np.random.default_rng(8).standard_normal((6, 96)).astype(np.float32)
    appended = np.concatenate([x, x.reshape(6, 3, 32).sum(-1)], axis=1)
    got = product(extended, appended, 1)
    np.testing.assert_allclose(got, appended @ extended.dequantized().T, atol=1e-4)
    expected = x @ quantized.dequantized().T
    # What is left is the rounding of the offsets themselves.
    steps = np.abs(extended.scales[:, -1])
    sums = np.abs(x.reshape(6, 3, 32).sum(-1)).sum(-1)
    assert (np.abs(got - expected) <= 0.6 * sums[:, None] * steps + 1e-3).all()
