"""The generated headers compile without warnings and say what the specification says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.ops.generate import camel, header
from edgekit.ops.registry import operator, stems
from edgekit.ops.spec import OpSpec

TYPES = {"T": "kGeneric", "int64": "kInt64", "int32": "kInt32", "float16": "kFloat16"}
SPECS = [spec for spec in map(operator, stems()) if not spec.trace_only]


def assertions(spec: OpSpec) -> str:
    """static_asserts of the position of every operand in every variant."""
    lines = []
    for attributes in spec.combinations():
        flags = "".join(f", {value}" for value in attributes.values())
        for kind, operands, active in (
            ("input", spec.inputs, spec.active_inputs(attributes)),
            ("output", spec.outputs, spec.active_outputs(attributes)),
        ):
            names = [operand.name for operand in active]
            lines.append(f"static_assert(op::{kind}_count({flags.removeprefix(', ')}) == {len(names)});")
            for operand in operands:
                index = names.index(operand.name) if operand.name in names else -1
                place = f"op::{kind.capitalize()}::k{camel(operand.name)}"
                lines.append(f"static_assert(op::{kind}_index({place}{flags}) == {index});")
                if index >= 0:
                    dtype = operand.dtype_under(attributes)
                    lines.append(f"static_assert(op::{kind}_type({place}{flags}) == op::Type::{TYPES[dtype]});")
    for operand in spec.outputs:
        past = f"static_cast<int>(op::Input::k{camel(operand.past)})" if operand.past else "-1"
        lines.append(f"static_assert(op::past_of(op::Output::k{camel(operand.name)}) == {past});")
    lines.append(f"static_assert(op::kAttributeCount == {len(spec.attributes)});")
    return "\n".join(lines)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_positions_agree_with_the_specification(spec: OpSpec, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    (tmp_path / "generated.h").write_text(header(spec))
    source = tmp_path / "positions.cpp"
    source.write_text(f'#include "generated.h"\nnamespace op = edgekit::{spec.stem};\n{assertions(spec)}\n')
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    result = subprocess.run([compiler, *options, str(source)], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    source.write_text(source.read_text() + "static_assert(op::kVersion == 99);\n")
    result = subprocess.run([compiler, *options, str(source)], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode != 0, "assertions are not compiled"
