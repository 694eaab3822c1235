"""Patterns: exact counts, the right direction, the largest; and their stored form to the byte."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.compress.saten.sparse import Groups, Unstructured, sparsity_named
from edgekit.compress.saten.sparse_format import positions, sparse, sparse_bytes
from edgekit.errors import ExportError
from tests.compress.saten.matrices import random

SPELLINGS = [
    "unstructured:95%",
    "unstructured:62.5%",
    "unstructured:100%",
    "2:4",
    "1:8",
    "3:3",
    "5:16",
    "row:75%",
    "block:4x16:90%",
    "block:2x8:0%",
]
SHAPE = (24, 48)


@pytest.mark.parametrize("spelling", [*SPELLINGS, "none"])
def test_spellings_return(spelling: str) -> None:
    assert sparsity_named(spelling).spelled() == spelling


def test_rows_have_a_share_unasked() -> None:
    assert sparsity_named("row") == sparsity_named("row:90%")


@pytest.mark.parametrize("kept", [0, 1, 57, 1151, 1152])
def test_exact_number_of_nonzeros(kept: int) -> None:
    scores = random(*SHAPE).abs()
    scores[:5] = 1.0  # many equal ones
    mask = Unstructured(1 - kept / 1152).mask(scores)
    assert int(mask.sum()) == kept
    if 0 < kept < 1152:
        assert scores[mask].min() >= scores[~mask].max()


@pytest.mark.parametrize(("kept", "of"), [(2, 4), (1, 8), (3, 3), (5, 16)])
def test_exactly_m_of_n_inputs(kept: int, of: int) -> None:
    scores = random(*SHAPE).abs()
    scores[3] = 0
    mask = Groups(kept, of).mask(scores)
    for row in range(24):
        for start in range(0, 48, of):
            group, chosen = scores[row, start : start + of], mask[row, start : start + of]
            assert int(chosen.sum()) == kept
            assert kept == of or group[chosen].min() >= group[~chosen].max()


def test_rows_and_blocks() -> None:
    scores = random(*SHAPE).abs()
    rows = sparsity_named("row:75%").mask(scores)
    best = set(np.argsort(-(scores**2).sum(1).numpy())[:6].tolist())
    assert set(torch.where(rows.any(1))[0].tolist()) == best
    assert int(rows.sum()) == 6 * 48
    blocks = sparsity_named("block:4x16:90%").mask(scores)  # 6 × 3 blocks: 2 stay
    sums = {
        (i, j): float((scores[4 * i : 4 * i + 4, 16 * j : 16 * j + 16] ** 2).sum()) for i in range(6) for j in range(3)
    }
    expected = torch.zeros(SHAPE, dtype=torch.bool)
    for i, j in sorted(sums, key=lambda place: -sums[place])[:2]:
        expected[4 * i : 4 * i + 4, 16 * j : 16 * j + 16] = True
    assert torch.equal(blocks, expected)
    assert not sparsity_named("none").mask(scores).any()


@pytest.mark.parametrize("dtype", ["float16", "int8", "int4"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_stored_form(spelling: str, dtype: str) -> None:
    sparsity, residual = sparsity_named(spelling), random(*SHAPE)
    mask = sparsity.mask(residual.abs())
    found = sparse(residual, mask, sparsity, dtype, block=32)
    assert np.array_equal(found.positions.mask(), mask.numpy())
    back = torch.from_numpy(found.dense()).double()
    assert not back[~mask].any()
    if mask.any():
        allowed = {"float16": 1e-3, "int8": 0.01, "int4": 0.2}[dtype]
        assert (back - residual)[mask].norm() <= allowed * residual[mask].norm()
    size = sum(len(array.tobytes()) for array in found.arrays().values())
    assert found.nbytes == size == sparse_bytes(SHAPE, sparsity, dtype, block=32)


def test_few_values_have_columns_and_many_a_bitmap() -> None:
    scores = random(64, 256).abs()
    few, many = Unstructured(0.98), Unstructured(0.6)
    stored = positions(few.mask(scores).numpy(), few)
    kept = int(few.mask(scores).sum())
    assert stored.format == "columns"
    assert stored.nbytes == 2 * kept + 2 * 64
    stored = positions(many.mask(scores).numpy(), many)
    assert stored.format == "bitmap"
    assert stored.nbytes == 64 * 256 // 8


def test_metadata_of_2_4() -> None:
    """Two bits a value, the lowest first: groups keep inputs 0 3, 1 2, 0 1, 2 3."""
    mask = np.array([[1, 0, 0, 1, 0, 1, 1, 0], [1, 1, 0, 0, 0, 0, 1, 1]], dtype=np.bool_)
    stored = positions(mask, Groups(2, 4))
    assert stored.arrays["places"].tolist() == [0b10_01_11_00, 0b11_10_01_00]
    # Half the values in 16 bits, and an eighth of a byte per weight: 1.125 bytes.
    assert sparse_bytes((64, 64), Groups(2, 4), "float16") == 64 * 64 * 1.125


def test_published_sizes() -> None:
    """95 % zeros, float16 values: 0.2 bytes per weight with 16-bit columns (and row counts), 0.225 with a bitmap."""
    rows, inputs = 1024, 4096
    assert sparse_bytes((rows, inputs), Unstructured(0.95), "float16") == pytest.approx(0.2 * rows * inputs, rel=0.005)
    assert sparse_bytes((rows, inputs), Unstructured(0.9), "float16") == pytest.approx(0.325 * rows * inputs, rel=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2:",
        "5:4",
        "0:4",
        "0:0",
        "unstructured",
        "unstructured:95",
        "unstructured:101%",
        "row:-1%",
        "row:",
        "block:90%",
        "block:0x4:90%",
        "2:4 ",
        "dense",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(ExportError, match="was given"):
        sparsity_named(text)


def test_shapes_that_do_not_suit() -> None:
    with pytest.raises(ExportError, match="the matrix has 50"):
        Groups(2, 4).mask(torch.ones(4, 50))
    for shape in ((6, 32), (8, 30)):
        with pytest.raises(ExportError, match=f"{shape[0]} × {shape[1]}"):
            sparsity_named("block:4x16:90%").mask(torch.ones(shape))
    wide = np.zeros((1, 2**16), np.bool_)
    wide[0, -1] = True
    with pytest.raises(ExportError, match="65536"):
        positions(wide, Unstructured(0.99999))
    with pytest.raises(ExportError, match="65536"):
        sparse_bytes((1, 2**16), Unstructured(0.99999), "float16")
