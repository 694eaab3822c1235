"""TTSparseLinear against a dense layer: packed residuals, a compressed matrix's pieces, gradients, all 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edgekit.compress.saten.pieces import Pair
from edgekit.compress.saten.sparse import sparsity_named
from edgekit.compress.saten.sparse_format import sparse
from edgekit.compress.saten.storage import FLOAT, stored
from edgekit.ops.spec import OperatorError
from edgekit.ops.tt_sparse_linear import SPEC, tt_sparse_linear
from edgekit.ops.tt_sparse_rows import packed_columns, packed_rows, unpacked_columns
from tests.ops.arrays import tensor_from_array
from tests.ops.backends.onnx_function import one_node_model
from tests.ops.compare import assert_close, expected_outputs

CASES = {case.name: case for case in SPEC.cases()}


def dense(columns: np.ndarray, values: np.ndarray, inputs: int) -> np.ndarray:
    """[O, K], entry by entry; two of one column add up, so that they would show."""
    found = np.zeros((len(values), inputs), values.dtype)
    for o, (row, kept) in enumerate(zip(columns, values, strict=True)):
        for column, value in zip(row, kept, strict=True):
            found[o, column] += value
    return found


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("inputs", [32, 61])
def test_packed_rows_hold_the_residual(inputs: int, share: float) -> None:
    draw = np.random.default_rng(7)
    residual = np.where(draw.random((23, inputs)) < share, draw.standard_normal((23, inputs)), 0).astype(np.float32)
    words, values = packed_rows(residual)
    columns = unpacked_columns(words)
    assert (words.dtype, values.dtype) == (np.int32, np.float32)
    assert values.shape == columns.shape == (23, 2 * words.shape[1])
    assert values.shape[1] - max(1, int((residual != 0).sum(1).max())) in (0, 1)
    assert all(len(set(row)) == len(row) for row in columns.tolist())
    np.testing.assert_array_equal(dense(columns, values, inputs), residual)


def test_the_earlier_column_is_in_the_low_half() -> None:
    assert packed_columns(np.array([[3, 5, 65535, 32768]])).tolist() == [[3 + 5 * 65536, 65535 - 32768 * 65536]]
    assert unpacked_columns(packed_columns(np.array([[0, 65535]]))).tolist() == [[0, 65535]]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(OperatorError, match="at most 65536 inputs\nthe residual has 65537"):
        packed_rows(np.zeros((1, 65537)))
    with pytest.raises(OperatorError, match="even number of distinct columns\n5 of 5 are kept"):
        packed_rows(np.ones((2, 5)))


@pytest.mark.parametrize("pattern", ["unstructured:90%", "2:4"])
def test_a_pair_and_a_residual_of_a_compressed_matrix_are_its_operands(pattern: str) -> None:
    """As they are stored: [r, K] and [r, N] are a and b."""
    draw = np.random.default_rng(3)
    a, b = draw.standard_normal((5, 48)).astype("f"), draw.standard_normal((5, 36)).astype("f")
    pair = Pair(stored(a, FLOAT), stored(b, FLOAT))
    rest = torch.from_numpy(draw.standard_normal((36, 48)).astype("f"))
    sparsity = sparsity_named(pattern)
    residual = sparse(rest, sparsity.mask(rest.abs()), sparsity, FLOAT)
    columns, values = packed_rows(residual.dense())
    x = torch.from_numpy(draw.standard_normal((2, 3, 48)))
    operands = (pair.inputs.values(), pair.outputs.values(), columns, values)
    wide = [torch.from_numpy(each).double() if each.dtype.kind == "f" else torch.from_numpy(each) for each in operands]
    weight = torch.from_numpy(pair.dense().astype("d") + residual.dense())
    bias = torch.from_numpy(draw.standard_normal(36))
    expected = torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(tt_sparse_linear(x, *wide, bias), expected, rtol=1e-5, atol=1e-5)


def positional(name: str) -> list[Any]:
    """The arguments of `torch.ops.edgekit.tt_sparse_linear` in float64, to be differentiated."""
    inputs = {key: tensor_from_array(array) for key, array in CASES[name].inputs("float64").items()}
    for tensor in inputs.values():
        tensor.requires_grad_(tensor.is_floating_point())
    return [inputs.get(operand.name) for operand in SPEC.inputs]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["decode-three-sequences", "residual-alone"])
def test_the_library_operator_keeps_its_promises(name: str) -> None:
    torch.library.opcheck(torch.ops.edgekit.tt_sparse_linear.default, tuple(positional(name)))


def test_gradients_of_the_operator_are_those_of_a_dense_layer() -> None:
    x, a, b, columns, values, bias = positional("decode-three-sequences")
    (y,) = torch.ops.edgekit.tt_sparse_linear(x, a, b, columns, values, bias)
    weights = torch.from_numpy(np.random.default_rng(1).standard_normal(y.shape))
    places = torch.from_numpy(unpacked_columns(columns.numpy()))
    residual = torch.zeros(len(values), x.shape[2], dtype=torch.float64).scatter_add(1, places, values)
    plain = torch.nn.functional.linear(x, b.T @ a + residual, bias)
    leaves = (x, a, b, values, bias)
    found, expected = (torch.autograd.grad(out, leaves, weights) for out in (y, plain))
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["all-16-bits-of-a-column", "two-tokens-rank-one"])
def test_the_body_by_another_evaluator(name: str) -> None:
    """onnx's own, and in bfloat16, which ONNX Runtime's CPU does not have."""
    case = CASES[name]
    inputs = case.inputs("bfloat16")
    assert name != "all-16-bits-of-a-column" or inputs["columns"].min() < 0
    model = one_node_model(SPEC, case.attributes, "bfloat16", 20)
    (y,) = ReferenceEvaluator(model).run(None, inputs)
    expected = expected_outputs(SPEC, case, inputs)["y"]
    assert_close("y", np.asarray(y), expected, SPEC.tolerances["bfloat16"])
