"""What multiplies by a base: by what was asked for, what the operator reads, and the cost model."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compress.blockwise import quantize_blocks
from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.cost import seconds
from edgekit.compress.saten.pieces import base
from edgekit.export.base_choice import LONGER, why_products
from edgekit.export.options import ExportOptions


def matrix(bits: int, block: int, outputs: int = 512, symmetric: bool = False) -> CompressedMatrix:
    quantized = base(quantize_blocks(np.ones((outputs, 512), np.float32), bits, block, symmetric=symmetric))
    return CompressedMatrix("dense", (outputs, 512), (quantized,), 0, 0, 0)


#: A call costs more than the operator's, which outweighs what blocks of 32 cost in small matrices.
@pytest.mark.parametrize(
    ("bits", "block", "outputs", "operator"),
    [
        *((2, 32, 512, True), (3, 32, 4096, True), (3, 64, 512, True), (4, 64, 4096, True)),
        *((4, 128, 512, True), (4, 32, 512, True), (4, 32, 4096, False)),
    ],
)
def test_the_cost_model_decides(bits: int, block: int, outputs: int, operator: bool) -> None:
    found = matrix(bits, block, outputs)
    assert (seconds(found) <= LONGER * seconds(found, products=True)) == operator
    reason = why_products(found, ExportOptions(dtype="int8"))
    assert reason == (None if operator else "the cost model expects the operator to take longer")


def test_what_is_asked_for_decides() -> None:
    assert why_products(matrix(4, 32), ExportOptions(dtype="int8", base="operator")) is None
    assert why_products(matrix(3, 64), ExportOptions(dtype="int8", base="products")) == "products were asked for"


@pytest.mark.parametrize(("bits", "block"), [(8, 32), (4, 16)])
def test_what_the_operator_does_not_read_is_a_product(bits: int, block: int) -> None:
    reason = why_products(matrix(bits, block), ExportOptions(dtype="int8", base="operator"))
    assert reason is not None
    assert f"{bits} bits in blocks of {block}, which the operator does not read" in reason


@pytest.mark.parametrize(
    ("bits", "block", "symmetric", "dtype", "form", "plugin"),
    [
        (4, 64, True, "int8", "tensorrt", False),
        (4, 128, True, "int4", "tensorrt", False),
        (4, 64, True, "fp16", "tensorrt", True),  # nothing else is codes there
        (4, 64, True, "int8", "jetpack6", True),  # opset 20 has no blocks
        (4, 64, False, "int8", "tensorrt", True),
        (4, 32, True, "int8", "tensorrt", True),
        (3, 64, True, "int8", "tensorrt", True),
        (2, 64, True, "int8", "tensorrt", True),
    ],
)
def test_tensorrt_keeps_what_it_reads(
    bits: int, block: int, symmetric: bool, dtype: str, form: str, plugin: bool
) -> None:
    found = matrix(bits, block, symmetric=symmetric)
    reason = why_products(found, ExportOptions(dtype=dtype, form=form))
    assert reason == (None if plugin else "TensorRT reads its codes")
    assert why_products(found, ExportOptions(dtype=dtype, form=form, base="operator")) is None
