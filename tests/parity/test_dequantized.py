"""The values of stored codes, against ONNX Runtime's own kernels on graphs of one node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.checkpoint import TensorSpec
from edgekit.errors import BundleError
from edgekit.parity.dequantized import DequantizedWeights, stored_matrices, unpacked

RNG = np.random.default_rng(0)
LAYER = "model.layers.0"


class Shapes:
    """A checkpoint that knows names and shapes, and whose values are ones."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.config: dict[str, Any] = {"tie_word_embeddings": True}

    def names(self) -> list[str]:
        return list(self.shapes)

    def spec(self, name: str) -> TensorSpec:
        return TensorSpec(name, self.shapes[name], "float32", 0)

    def array(self, name: str) -> np.ndarray:
        return np.ones(self.shapes[name], np.float32)


def model_of(
    op: str, name: str, inputs: Sequence[Any], *, domain: str = "com.microsoft", ids: bool = False, **attributes: Any
) -> onnx.ModelProto:
    """One node; inputs that are arrays become constants, and "x" the graph's input."""
    names, constants = [], []
    for index, value in enumerate(inputs):
        if isinstance(value, np.ndarray):
            constants.append(numpy_helper.from_array(value, f"{name}.codes" if index == 0 else f"{name}.{index}"))
            names.append(constants[-1].name)
        else:
            names.append(value)
    node = helper.make_node(op, names, ["y"], name=name, domain=domain, **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.INT64 if ids else TensorProto.FLOAT, None)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", [x] if "x" in names else [], [y], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def product(name: str, rows: int, columns: int, bits: int, block: int, zero_points: bool) -> onnx.ModelProto:
    """A MatMulNBits with random codes."""
    blocks = -(-columns // block)
    inputs: list[Any] = [
        "x",
        RNG.integers(0, 256, (rows, blocks, block * bits // 8), np.uint8),
        RNG.uniform(0.5, 2.0, rows * blocks).astype(np.float32),
    ]
    if zero_points:
        inputs.append(RNG.integers(0, 256, rows * -(-blocks * bits // 8), np.uint8))
    return model_of("MatMulNBits", name, inputs, K=columns, N=rows, bits=bits, block_size=block, accuracy_level=1)


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize(
    ("bits", "block", "columns"), [(4, 32, 96), (4, 16, 80), (4, 32, 70), (8, 32, 96), (2, 32, 96)]
)
def test_products(bits: int, block: int, columns: int, zero_points: bool) -> None:
    rows = 24
    model = product(f"{LAYER}.mlp.down_proj", rows, columns, bits, block, zero_points)
    name = f"{LAYER}.mlp.down_proj.weight"
    (found,) = stored_matrices(model, Path(), Shapes({name: (rows, columns)})).items()  # type: ignore[arg-type]
    assert (found[0], found[1].bits) == (name, bits)
    values = found[1].load()
    assert values.shape == (rows, columns)
    assert values.dtype == np.float32
    # A unit vector for each input: the result is the transposed matrix.
    assert np.allclose(run(model, x=np.eye(columns, dtype=np.float32)).T, values, rtol=1e-6, atol=1e-5)


def test_a_packed_product_is_split_by_the_rows_of_its_parts() -> None:
    model = product(f"{LAYER}.self_attn.qkv_proj", 48, 64, 4, 32, True)
    rows = {"q": 32, "k": 8, "v": 8}
    shapes = {f"{LAYER}.self_attn.{part}_proj.weight": (count, 64) for part, count in rows.items()}
    found = stored_matrices(model, Path(), Shapes(shapes))  # type: ignore[arg-type]
    assert list(found) == list(shapes)
    stacked = np.concatenate([matrix.load() for matrix in found.values()])
    assert np.allclose(run(model, x=np.eye(64, dtype=np.float32)).T, stacked, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize(("bits", "block"), [(4, 32), (4, 16), (8, 32)])
def test_tables(bits: int, block: int, zero_points: bool) -> None:
    rows, columns = 20, 96
    inputs: list[Any] = [
        RNG.integers(0, 256, (rows, columns * bits // 8), np.uint8),
        "x",
        RNG.uniform(0.5, 2.0, (rows, columns // block)).astype(np.float32),
    ]
    if zero_points:
        inputs.append(RNG.integers(0, 256, (rows, -(-columns // block * bits // 8)), np.uint8))
    model = model_of(
        "GatherBlockQuantized", "model.embed_tokens", inputs, ids=True, bits=bits, block_size=block,
        gather_axis=0, quantize_axis=1,
    )  # fmt: skip
    shapes = Shapes({"model.embed_tokens.weight": (rows, columns)})
    (matrix,) = stored_matrices(model, Path(), shapes).values()  # type: ignore[arg-type]
    assert np.allclose(run(model, x=np.arange(rows)), matrix.load(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, np.int8, np.uint8])
@pytest.mark.parametrize("inputs_first", [True, False])
@pytest.mark.parametrize("block", [0, 16])
def test_dequantize_linear(dtype: Any, inputs_first: bool, block: int) -> None:
    outputs, inputs = 12, 48
    low, high = (-8, 8) if dtype == ml_dtypes.int4 else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    codes = RNG.integers(low, high, (outputs, inputs)).astype(dtype)
    shape = (outputs, inputs // block) if block else (outputs,)
    scales = RNG.uniform(0.5, 2.0, shape).astype(np.float32)
    zeros = RNG.integers(max(low, -5), 5, shape).astype(dtype)
    if inputs_first:
        codes, scales, zeros = (np.ascontiguousarray(array.T) for array in (codes, scales, zeros))
    axis = int(inputs_first) if not block else int(not inputs_first)
    attributes = {"axis": axis, **({"block_size": block} if block else {})}
    scope = f"{LAYER}.mlp.up_proj"
    model = model_of("DequantizeLinear", scope, [codes, scales, zeros], domain="", **attributes)
    shapes = Shapes({f"{scope}.weight": (outputs, inputs)})
    (matrix,) = stored_matrices(model, Path(), shapes).values()  # type: ignore[arg-type]
    expected = run(model)
    assert np.array_equal(matrix.load(), expected.T if inputs_first else expected)


def test_unpacking_begins_with_the_low_bits() -> None:
    packed = np.array([[0x21, 0xF3]], np.uint8)
    assert unpacked(packed, 4).tolist() == [[1, 2, 3, 15]]
    assert unpacked(packed, 2).tolist() == [[1, 0, 2, 0, 3, 0, 3, 3]]
    assert unpacked(packed, 8).tolist() == [[0x21, 0xF3]]


def test_columns_that_multiply_the_sums_of_blocks() -> None:
    model = product(f"{LAYER}.mlp.down_proj", 24, 64 + 2, 8, 32, True)
    shapes = Shapes({f"{LAYER}.mlp.down_proj.weight": (24, 64)})
    (matrix,) = stored_matrices(model, Path(), shapes).values()  # type: ignore[arg-type]
    x = RNG.standard_normal((5, 64)).astype(np.float32)
    with_sums = np.concatenate([x, x.reshape(5, 2, 32).sum(-1)], axis=1)
    assert np.allclose(run(model, x=with_sums), x @ matrix.load().T, rtol=1e-4, atol=1e-2)


def test_a_head_of_its_own_unties_the_model() -> None:
    model = product("lm_head", 24, 64, 4, 32, False)
    checkpoint = Shapes({"model.embed_tokens.weight": (24, 64), "model.norm.weight": (64,)})
    stored = stored_matrices(model, Path(), checkpoint)  # type: ignore[arg-type]
    weights = DequantizedWeights(checkpoint, stored)  # type: ignore[arg-type]
    assert weights.names() == ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    assert weights.config["tie_word_embeddings"] is False
    assert checkpoint.config["tie_word_embeddings"] is True
    assert weights.spec("lm_head.weight").shape == (24, 64)
    assert not (weights.array("lm_head.weight") == 1).all()
    assert (weights.array("model.embed_tokens.weight") == 1).all()
    assert (weights.original("lm_head.weight") == 1).all()


def test_a_float_graph_stores_no_codes() -> None:
    model = model_of("MatMul", f"{LAYER}.mlp.up_proj", ["x", np.ones((4, 4), np.float32)], domain="")
    assert stored_matrices(model, Path(), Shapes({})) == {}  # type: ignore[arg-type]


def refused(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> str:
    with pytest.raises(BundleError) as raised:
        stored_matrices(model, Path(), Shapes(shapes))  # type: ignore[arg-type]
    return raised.value.fact


def test_refusals() -> None:
    codes, name = np.zeros((4, 4), np.uint8), f"{LAYER}.mlp.up_proj.weight"
    assert "does not read MatMulInteger" in refused(model_of("MatMulInteger", "m", [codes, codes], domain=""), {})
    packed = product(f"{LAYER}.mlp.up_proj", 24, 64, 4, 32, False)
    assert f"the checkpoint has no weight {name}" in refused(packed, {})
    assert "it has 24 rows" in refused(packed, {name: (25, 64)})
    assert "it has 64 columns" in refused(packed, {name: (24, 65)})
    assert "it has 64 columns" in refused(packed, {name: (24, 50)})
    packed.graph.node[0].input.extend(["", "permutation"])
    assert "g_idx" in refused(packed, {name: (24, 64)})
    table = model_of("GatherBlockQuantized", "model.embed_tokens", [codes, "x", codes], quantize_axis=0, bits=8)
    assert "only tables" in refused(table, {"model.embed_tokens.weight": (4, 4)})
