"""TTSparseLinear against a dense layer: packed words, a compressed matrix's pieces, gradients, all 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edgekit.compress.blockwise import quantize_blocks
from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.factors import train_within
from edgekit.compress.saten.operator import operator_inputs
from edgekit.compress.saten.pieces import Pair, Piece, base
from edgekit.compress.saten.sparse import sparsity_named
from edgekit.compress.saten.sparse_format import sparse
from edgekit.compress.saten.storage import packed, stored
from edgekit.errors import ExportError
from edgekit.ops.spec import OperatorError
from edgekit.ops.specs.tt_sparse_linear import BITMAP, COLUMNS, GROUPS
from edgekit.ops.tt_sparse_base import base_operands
from edgekit.ops.tt_sparse_linear import SPEC, tt_sparse_linear, unpacked
from edgekit.ops.tt_sparse_rows import packed_words, positions, unpacked_words, words
from tests.ops.arrays import tensor_from_array
from tests.ops.backends.onnx_function import one_node_model
from tests.ops.compare import assert_close, expected_outputs

CASES = {case.name: case for case in SPEC.cases()}


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("count", [1, 31, 32, 77])
def test_words_hold_their_codes(bits: int, count: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, count)
    words = packed_words(codes, bits)
    assert (words.dtype, len(words)) == (np.int32, -(-count * bits // 32))
    number = sum(int(code) << bits * place for place, code in enumerate(codes))
    assert [word & 0xFFFFFFFF for word in words.tolist()] == [
        number >> 32 * place & 0xFFFFFFFF for place in range(len(words))
    ]
    np.testing.assert_array_equal(unpacked_words(words, bits, count), codes)
    np.testing.assert_array_equal(unpacked(torch.from_numpy(words), bits, count).numpy(), codes)


def test_words_are_the_bytes_that_are_stored() -> None:
    data = np.arange(7, dtype=np.uint8)
    assert words(data).astype("<i4").tobytes() == data.tobytes() + bytes(1)
    codes = np.random.default_rng(0).integers(0, 16, 33).astype(np.uint8)
    np.testing.assert_array_equal(words(packed(codes, 4)), packed_words(codes, 4))


def test_positions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(OperatorError, match="at most 65536 inputs\nthe residual has 65537"):
        positions(np.ones((1, 65537), np.bool_), COLUMNS)
    with pytest.raises(OperatorError, match="a residual must have entries\nnothing is kept"):
        positions(np.zeros((2, 8), np.bool_), BITMAP)
    for mask in (np.eye(8, dtype=np.bool_), np.tile([True, True, False], (2, 2))):
        with pytest.raises(OperatorError, match="each 4 inputs of an output must have 2 entries"):
            positions(mask, GROUPS, 2)


SPARSITIES = ("none", "unstructured:97%", "unstructured:70%", "2:4", "4:8", "row:80%", "block:4x16:50%")


@pytest.mark.parametrize("dtype", ["float16", "int8", "int4"])
@pytest.mark.parametrize("pattern", SPARSITIES)
def test_a_compressed_matrix_is_its_operands(pattern: str, dtype: str) -> None:
    """Ŵ as its pieces tell it, and everything of it that is stored as it is stored."""
    draw = np.random.default_rng(3)
    numbers = [draw.standard_normal(shape).astype("f") for shape in ((5, 48), (5, 36))]
    pieces: list[Piece] = [Pair(*(stored(each, dtype, 32) for each in numbers))]
    if pattern != "none":
        rest, sparsity = torch.from_numpy(draw.standard_normal((36, 48)).astype("f")), sparsity_named(pattern)
        pieces.append(sparse(rest, sparsity.mask(rest.abs()), sparsity, dtype, 32))
    matrix = CompressedMatrix("by hand", (36, 48), tuple(pieces), 0, 0, 0)
    bias = draw.standard_normal(36).astype("f")
    attributes, arrays = operator_inputs(matrix, bias)
    x = torch.from_numpy(draw.standard_normal((2, 3, 48)))
    inputs = {"x": x} | {name: torch.from_numpy(array) for name, array in arrays.items()}
    SPEC.output_shapes(attributes, {name: tuple(value.shape) for name, value in inputs.items()})
    weight, wide_bias = torch.from_numpy(matrix.reconstruct()).double(), torch.from_numpy(bias).double()
    expected = torch.nn.functional.linear(x, weight, wide_bias)
    torch.testing.assert_close(tt_sparse_linear(attributes, inputs), expected, rtol=1e-5, atol=1e-5)

    kept = {name: array.tobytes() for piece in matrix.pieces for name, array in piece.arrays().items()}
    given = [array.tobytes() for array in arrays.values()]
    made = {name for name, data in kept.items() if not any(other.startswith(data) for other in given)}
    assert made == MADE.get(pattern, set())
    assert attributes["residual"] == {"none": 0, "unstructured:97%": COLUMNS, "2:4": GROUPS}.get(pattern, BITMAP)


#: What the operator has in another form: row starts for counts, and bitmaps for patterns that it does not read.
MADE = {"unstructured:97%": {"counts"}, "4:8": {"places"}, "row:80%": {"rows"}, "block:4x16:50%": {"blocks"}}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("outputs", "inputs", "block"), [(32, 128, 64), (37, 100, 32), (5, 130, 128)])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_base_is_its_operands(bits: int, outputs: int, inputs: int, block: int, symmetric: bool) -> None:
    """Ŵ as its pieces tell it, in as many bytes where tiles are whole."""
    draw = np.random.default_rng(bits)
    weight = draw.standard_normal((outputs, inputs)).astype("f")
    stored_base = base(quantize_blocks(weight, bits, block, symmetric=symmetric))
    matrix = CompressedMatrix("dense", (outputs, inputs), (stored_base,), 0, 0, 0)
    attributes, arrays = operator_inputs(matrix, base=True)
    assert (attributes["base_bits"], attributes["zero_points"]) == (bits, int(not symmetric))
    x = torch.from_numpy(draw.standard_normal((1, 2, inputs)))
    given = {"x": x} | {name: torch.from_numpy(array) for name, array in arrays.items()}
    SPEC.output_shapes(attributes, {name: tuple(value.shape) for name, value in given.items()})
    expected = torch.nn.functional.linear(x, torch.from_numpy(matrix.reconstruct()).double())
    torch.testing.assert_close(tt_sparse_linear(attributes, given), expected, rtol=1e-6, atol=1e-6)
    if outputs == 32:
        zeros = stored_base.arrays()["zero_points"].nbytes if symmetric else 0
        assert sum(array.nbytes for array in arrays.values()) == stored_base.nbytes - zeros


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_each_code_of_a_base_is_where_the_specification_says(bits: int) -> None:
    """One code that is not 0: by its input and row, the bits that are set, counted from the lowest of its tile."""
    expected = {
        2: {0: (0, 1), 3: (24, 25), 4: (2, 3), 31: (30 + 512, 31 + 512)},
        3: {0: (0, 1, 2), 5: (11, 12, 13), 9: (8 + 512, 9 + 512, 10 + 512), 26: (22, 23, 22 + 1024)},
        4: {0: (0, 1, 2, 3), 7: (28, 29, 30, 31), 8: (512, 513, 514, 515), 31: tuple(range(1564, 1568))},
    }[bits]
    expected |= {29: (14 + 512, 15 + 512, 15 + 1024)} if bits == 3 else {}
    for place, places in expected.items():
        codes = np.zeros((16, 1, 32), np.uint8)
        codes[5, 0, place] = 2**bits - 1
        stream = base_operands(codes, np.ones((16, 1)), None, bits)["base"].view(np.uint8)
        found = np.flatnonzero(np.unpackbits(stream, bitorder="little"))
        assert tuple(found - 5 * 32) == places


def test_a_base_of_other_bits_or_blocks_is_refused() -> None:
    weight = np.ones((4, 64), np.float32)
    for bits, block in ((8, 32), (4, 16)):
        matrix = CompressedMatrix("dense", (4, 64), (base(quantize_blocks(weight, bits, block)),), 0, 0, 0)
        with pytest.raises(ExportError, match=f"{bits} bits in blocks of {block}"):
            operator_inputs(matrix, base=True)
        with pytest.raises(OperatorError, match=f"{bits} bits and blocks of {block}"):
            base_operands(np.zeros((4, 2, block)), np.ones((4, 2)), None, bits)


def test_a_train_is_contracted() -> None:
    weight = torch.randn(36, 48, generator=torch.Generator().manual_seed(1))
    train = train_within(weight, 4, 3000, "float16", 64)
    assert train is not None
    attributes, arrays = operator_inputs(CompressedMatrix("by hand", (36, 48), (train,), 0, 0, 0))
    assert (attributes["factor_bits"], attributes["rank"]) == (16, len(arrays["a"]))
    found = arrays["b"].astype("d").T @ arrays["a"].astype("d")
    np.testing.assert_allclose(found, train.dense(), rtol=0, atol=2e-3 * np.abs(train.dense()).max())


def test_what_the_operator_does_not_read_is_refused() -> None:
    numbers = np.ones((4, 32), np.float32)
    with pytest.raises(ExportError, match="made neither of this matrix"):
        operator_inputs(CompressedMatrix("dense", (32, 32), (base(quantize_blocks(numbers, 4, 32)),), 0, 0, 0))
    for dtype, block in (("int3", 32), ("int4", 24)):
        pair = Pair(*(stored(numbers, dtype, block) for _ in range(2)))
        with pytest.raises(ExportError, match=f"{dtype} with blocks of {block} is stored"):
            operator_inputs(CompressedMatrix("by hand", (32, 32), (pair,), 0, 0, 0))
    unlike = Pair(stored(numbers, "int4", 32), stored(numbers, "int8", 32))
    with pytest.raises(ExportError, match="int4 and int8"):
        operator_inputs(CompressedMatrix("by hand", (32, 32), (unlike,), 0, 0, 0))


def positional(name: str) -> list[Any]:
    """The arguments of `torch.ops.edgekit.tt_sparse_linear` in float64, to be differentiated."""
    case = CASES[name]
    inputs = {key: tensor_from_array(array) for key, array in case.inputs("float64").items()}
    for tensor in inputs.values():
        tensor.requires_grad_(tensor.dtype == torch.float64)
    flags = ("low_rank", "bias", "zero_points")
    integers = [a.name for a in SPEC.attributes if a.kind == "int" and a.name not in flags]
    return [inputs.get(operand.name) for operand in SPEC.inputs] + [case.attributes[each] for each in integers]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["decode-three-sequences", "residual-alone", "groups-2-of-4", "bitmap-nearly-full", "base-of-3-beside-1"]
)
def test_the_library_operator_keeps_its_promises(name: str) -> None:
    torch.library.opcheck(torch.ops.edgekit.tt_sparse_linear.default, tuple(positional(name)))


@pytest.mark.parametrize("name", ["decode-three-sequences", "bitmap-plain"])
def test_gradients_of_the_operator_are_those_of_a_dense_layer(name: str) -> None:
    given = positional(name)
    inputs = dict(zip((operand.name for operand in SPEC.inputs), given, strict=False))
    (y,) = torch.ops.edgekit.tt_sparse_linear(*given)
    weights = torch.from_numpy(np.random.default_rng(1).standard_normal(y.shape))
    x, a, b, values, bias = (inputs[each] for each in ("x", "a", "b", "values", "bias"))
    mask = torch.zeros(y.shape[2], x.shape[2], dtype=torch.bool)
    starts, found = inputs["starts"].tolist(), inputs["positions"].numpy()
    if name == "bitmap-plain":
        mask = torch.from_numpy(unpacked_words(found, 1, mask.numel())).reshape(mask.shape) > 0
    else:
        for row, (start, end) in enumerate(zip(starts, [*starts[1:], len(values)], strict=True)):
            mask[row, unpacked_words(found, 16, len(values))[start:end]] = True
    residual = torch.zeros(mask.shape, dtype=torch.float64).masked_scatter(mask, values)
    plain = torch.nn.functional.linear(x, b.T @ a + residual, bias)
    leaves = (x, a, b, values, bias)
    mine, expected = (torch.autograd.grad(out, leaves, weights) for out in (y, plain))
    for left, right in zip(mine, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["all-16-bits-of-a-column", "two-tokens-rank-one", "base-67-to-131"])
def test_the_body_by_another_evaluator(name: str) -> None:
    """onnx's own, and in bfloat16, which ONNX Runtime's CPU does not have."""
    case = CASES[name]
    inputs = case.inputs("bfloat16")
    assert name != "all-16-bits-of-a-column" or inputs["positions"].min() < 0
    model = one_node_model(SPEC, case.attributes, "bfloat16", 20)
    (y,) = ReferenceEvaluator(model).run(None, inputs)
    expected = expected_outputs(SPEC, case, inputs)["y"]
    assert_close("y", np.asarray(y), expected, SPEC.tolerances["bfloat16"])
