"""What torch.onnx.export needs to keep edgekit's torch.library operators as single nodes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import onnx
from onnxscript import evaluator

from edgekit.ops.registry import operator, stems
from edgekit.ops.spec import GENERIC, Attributes, Operand, OpSpec

_TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "bfloat16": "tensor(bfloat16)",
    "float64": "tensor(double)",
}


def translation_table() -> dict[Any, Callable[..., Any]]:
    """`custom_translation_table` of torch.onnx.export: torch.library operator → one node of the domain edgekit."""
    table = {}
    for spec in map(operator, stems()):
        module = import_module(f"edgekit.ops.{spec.stem}")
        if hasattr(module, "OP"):
            table[module.OP._opoverload] = _translation(spec, module.operands)
    return table


def onnx_schema(spec: OpSpec, attributes: Attributes) -> onnx.defs.OpSchema:
    """The operator as onnx describes one, with the operands that exist under these attributes."""
    schema = onnx.defs.OpSchema
    kinds = {"float": schema.AttrType.FLOAT, "int": schema.AttrType.INT, "string": schema.AttrType.STRING}

    def parameter(operand: Operand) -> onnx.defs.OpSchema.FormalParameter:
        dtype = operand.dtype_under(attributes)
        kind = GENERIC if dtype == GENERIC else f"tensor({dtype})"
        return schema.FormalParameter(operand.name, kind, operand.meaning)

    return schema(
        spec.name,
        spec.domain,
        spec.version,
        doc=spec.summary,
        inputs=[parameter(operand) for operand in spec.active_inputs(attributes)],
        outputs=[parameter(operand) for operand in spec.active_outputs(attributes)],
        type_constraints=[(GENERIC, [_TYPES[dtype] for dtype in spec.dtypes], "element type of the graph")],
        attributes=[schema.Attribute(a.name, kinds[a.kind], a.meaning, required=True) for a in spec.attributes],
    )


def _translation(spec: OpSpec, operands: Callable[..., tuple[dict[str, Any], dict[str, Any]]]) -> Callable[..., Any]:
    def translate(*arguments: Any) -> Any:
        attributes, inputs = operands(*arguments)
        recorder: Any = evaluator.default()
        results = recorder.eval(onnx_schema(spec, attributes), list(inputs.values()), attributes)
        return results if len(spec.active_outputs(attributes)) > 1 else [results]

    return translate
