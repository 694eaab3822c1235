"""Function bodies pass the checker and strict shape inference with every size symbolic, and use few operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgekit.ops.registry import operator, stems
from edgekit.ops.spec import OperatorError, OpSpec
from tests.ops.backends.onnx_function import one_node_model
from tests.ops.combinations import covering
from tests.ops.compare import assert_close, expected_outputs

SPECS = [spec for spec in map(operator, stems()) if not spec.trace_only]
#: What TensorRT 10.3 imports, of the operators that bodies use (its list of supported ONNX operators, opset 20).
TENSORRT_10_3 = {
    "Add", "And", "Cast", "Concat", "Constant", "CumSum", "Div", "Equal", "Expand", "Gather", "Identity", "LessOrEqual",
    "MatMul", "Max", "Mod", "Mul", "Not", "Or", "Range", "ReduceSum", "Reshape", "ScatterElements", "Shape", "Slice",
    "Softmax", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


def variants(spec: OpSpec) -> list[dict[str, Any]]:
    """All attributes of one node of each variant."""
    reals = {a.name: 0.5 for a in spec.attributes if a.value is None and a.kind == "float"}
    sizes = {a.name: 8 for a in spec.attributes if a.axis}
    return [spec.complete(reals | sizes | values) for values in covering(spec)]


GRID = [
    pytest.param(spec, attributes, id=f"{spec.name}-" + spec.overload(attributes))
    for spec in SPECS
    for attributes in variants(spec)
]


@pytest.mark.parametrize("opset", [18, 20, 23, 24])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("spec", "attributes"), GRID)
def test_passes_the_checker_and_strict_inference(
    spec: OpSpec, attributes: dict[str, Any], dtype: str, opset: int
) -> None:
    model = one_node_model(spec, attributes, dtype, opset)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


@pytest.mark.parametrize(("spec", "attributes"), GRID)
def test_sticks_to_what_tensorrt_10_3_imports(spec: OpSpec, attributes: dict[str, Any]) -> None:
    body = spec.function(20, attributes, "float16")
    assert {node.op_type for node in body.node} <= TENSORRT_10_3
    assert {node.domain for node in body.node} == {""}
    assert [entry.version for entry in body.opset_import] == [20]


@pytest.mark.parametrize(("spec", "attributes"), GRID)
def test_declares_every_attribute_of_the_node(spec: OpSpec, attributes: dict[str, Any]) -> None:
    body = spec.function(20, attributes)
    assert list(body.attribute) == list(attributes)
    assert list(body.input) == [operand.name for operand in spec.active_inputs(attributes)]
    assert list(body.output) == [operand.name for operand in spec.active_outputs(attributes)]


@pytest.mark.parametrize("opset", [18, 23, 24])
@pytest.mark.parametrize("name", ["verify-131-ragged", "variant-000-prefill-70", "frequencies-repeated"])
def test_runs_in_every_opset(name: str, opset: int) -> None:
    import onnxruntime

    spec = operator("TPAAttention")
    case = next(case for case in spec.cases() if case.name == name)
    model = one_node_model(spec, case.attributes, "float32", opset)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = case.inputs("float32")
    expected = expected_outputs(spec, case, inputs)
    for operand, output in zip(spec.active_outputs(case.attributes), session.run(None, inputs), strict=True):
        assert_close(operand.name, output, expected[operand.name], spec.tolerances["float32"])


@pytest.mark.parametrize("name", ["variant-111-decode-131", "variant-000-decode-131"])
def test_bfloat16_bodies_compute_in_float32(name: str) -> None:
    """By onnx's own evaluator: ONNX Runtime has most of these operators in bfloat16 on GPUs only."""
    spec = operator("TPAAttention")
    case = next(case for case in spec.cases() if case.name == name)
    inputs = case.inputs("bfloat16")
    outputs = ReferenceEvaluator(one_node_model(spec, case.attributes, "bfloat16", 20)).run(None, inputs)
    expected = expected_outputs(spec, case, inputs)
    for operand, output in zip(spec.active_outputs(case.attributes), outputs, strict=True):
        assert output.dtype.name == "bfloat16"
        assert_close(operand.name, np.asarray(output), expected[operand.name], spec.tolerances["bfloat16"])


def test_an_older_opset_or_another_type_is_refused() -> None:
    spec = operator("TPAAttention")
    attributes = variants(spec)[0]
    with pytest.raises(OperatorError, match="needs opset 18 or later\nthe graph has opset 17"):
        spec.function(17, attributes)
    with pytest.raises(OperatorError, match="takes float32, float16, bfloat16, float64\nthe graph has int8"):
        spec.function(18, attributes, "int8")
