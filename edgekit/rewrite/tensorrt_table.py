"""Which operators a version of TensorRT takes, and whether a model keeps to them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from edgekit.contract import OPERATOR_DOMAIN
from edgekit.errors import RewriteError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLES = Path(__file__).parent / "known"

#: The input that the types of the table are about, where it is not the first.
_DATA_INPUT = {"Where": 1}


@dataclass(frozen=True)
class OperatorTable:
    """A version's operators.

    Attributes:
        opset: the lowest and the highest opset that it takes.
        operators: element types of the data, by operator.
        constant_inputs: positions of inputs that must be constants, by operator.
        absent_inputs, absent_outputs, absent_attributes: what a node must not have, by operator.
        blocks: how many weights may share a scale, by the type of their codes; absent where any number may.
        functions_win: whether a function in the model runs even where a plugin of its name is registered.
    """

    version: str
    opset: tuple[int, int]
    operators: dict[str, tuple[str, ...]]
    constant_inputs: dict[str, tuple[int, ...]]
    absent_inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    absent_outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    absent_attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    blocks: dict[str, tuple[int, ...]] = field(default_factory=dict)
    functions_win: bool = True


@dataclass(frozen=True)
class Unsupported:
    """A place in a model that a version of TensorRT would not take.

    Attributes:
        place: the node, or "opset" or "functions" for the model as a whole.
    """

    place: str
    operator: str
    reason: str


@cache
def operator_table(version: str) -> OperatorTable:
    """The table called so: that of a TensorRT version ("10.3"), or of one of TensorRT-RTX ("rtx-1.7").

    Raises:
        RewriteError: there is no table for it.
    """
    path = TABLES / f"tensorrt-{version}.toml"
    if not path.is_file():
        raise RewriteError(
            "an operator table is known for some versions of TensorRT", f"{version} is not one of {known_tables()}"
        )
    document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    lowest, highest = document["opset"]

    def listed(section: str) -> dict[str, tuple[Any, ...]]:
        return {name: tuple(values) for name, values in document.get(section, {}).items()}

    return OperatorTable(
        version=document["version"],
        opset=(lowest, highest),
        operators=listed("operators"),
        constant_inputs=listed("constant_inputs"),
        absent_inputs=listed("absent_inputs"),
        absent_outputs=listed("absent_outputs"),
        absent_attributes=listed("absent_attributes"),
        blocks=listed("blocks"),
        functions_win=document["functions"] == "always",
    )


def known_tables() -> list[str]:
    """Names of all tables, sorted."""
    return sorted(path.stem.removeprefix("tensorrt-") for path in TABLES.glob("tensorrt-*.toml"))


def table_for(backend: str, version: str) -> OperatorTable:
    """The table for an installed version: that of the newest version that is known and not newer.

    Args:
        backend: "tensorrt" or "tensorrt-rtx"; version: "10.16.1.11".

    Raises:
        RewriteError: it is older than every version that is known.
    """
    prefix = "rtx-" if backend == "tensorrt-rtx" else ""
    known = [name.removeprefix("rtx-") for name in known_tables() if name.startswith("rtx-") == bool(prefix)]
    older = [name for name in known if _release(name) <= _release(version)]
    if not older:
        raise RewriteError(
            f"operators of {backend} are known from version {min(known, key=_release)} on",
            f"version {version} is installed",
            "install a newer one",
        )
    return operator_table(prefix + max(older, key=_release))


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def check_operators(model: onnx.ModelProto, table: OperatorTable) -> list[Unsupported]:
    """Everything in the model that this TensorRT would refuse, or would run other than meant; empty if nothing.

    Weights may be in an external file; they are not read.
    """
    found = []
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    lowest, highest = table.opset
    if not lowest <= opset <= highest:
        reason = f"TensorRT {table.version} takes opset {lowest} to {highest}, the model has {opset}"
        found.append(Unsupported("opset", "", reason))
    for function in model.functions if table.functions_win else ():
        reason = f"TensorRT {table.version} runs the function even where a plugin is registered"
        found.append(Unsupported("functions", f"{function.domain}::{function.name}", reason))
    types = _element_types(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    for index, node in enumerate(model.graph.node):
        place = node.name or f"node {index}"
        found += [Unsupported(place, node.op_type, reason) for reason in _reasons(node, table, types, constants)]
    return found


def _reasons(node: onnx.NodeProto, table: OperatorTable, types: dict[str, str], constants: set[str]) -> Iterator[str]:
    if node.domain == OPERATOR_DOMAIN:  # becomes a plugin
        written = {attribute.name for attribute in node.attribute}
        missing = sorted({"plugin_namespace", "plugin_version"} - written)
        if missing:
            yield f"a plugin is found by attributes of the node that it lacks: {', '.join(missing)}"
        return
    if node.domain not in ("", "ai.onnx") or node.op_type not in table.operators:
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        yield f"TensorRT {table.version} has no {name}"
        return
    allowed = table.operators[node.op_type]
    data = _DATA_INPUT.get(node.op_type, 0)
    element = types.get(node.input[data]) if len(node.input) > data else None
    if element is not None and element not in allowed:
        yield f"{node.op_type} takes {', '.join(allowed)}, not {element}"
    for position in table.constant_inputs.get(node.op_type, ()):
        if _given(node.input, position) and node.input[position] not in constants:
            yield f"input {position} of {node.op_type} must be a constant, and {node.input[position]} is computed"
    yield from _parts_too_many(node, table)
    blocks = table.blocks.get(element or "") if node.op_type == "DequantizeLinear" else None
    size = next((attribute.i for attribute in node.attribute if attribute.name == "block_size"), 0)
    if blocks is not None and size and size not in blocks:
        allowed_sizes = f"share a scale {' or '.join(map(str, blocks))} at a time" if blocks else "have one per output"
        yield f"{element} weights {allowed_sizes}, here {size} share one"


def _parts_too_many(node: onnx.NodeProto, table: OperatorTable) -> Iterator[str]:
    for kind, names, positions in (
        ("input", node.input, table.absent_inputs.get(node.op_type, ())),
        ("output", node.output, table.absent_outputs.get(node.op_type, ())),
    ):
        for position in positions:
            if _given(names, position):
                yield f"{node.op_type} must not have its {kind} {position}, and {names[position]} is one"
    for attribute in node.attribute:
        if attribute.name in table.absent_attributes.get(node.op_type, ()):
            value = onnx.helper.get_attribute_value(attribute)
            if value not in (0, b""):
                yield f"{node.op_type} must not have the attribute {attribute.name}, which is {value!r}"


def _given(names: Sequence[str], position: int) -> bool:
    return len(names) > position and names[position] != ""


def _element_types(model: onnx.ModelProto) -> dict[str, str]:
    """Element types of the tensors, as far as inference can tell: it knows nothing about outputs of plugins."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=False)
    graph = inferred.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    return {
        name: str(onnx.helper.tensor_dtype_to_np_dtype(number))
        for name, number in types.items()
        if number != onnx.TensorProto.UNDEFINED
    }
