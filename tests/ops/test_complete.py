"""Every operator has all of its pieces, and nothing generated is stale; and these checks notice what they are for."""

from __future__ import annotations

import dataclasses
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch

from edgekit.ops.pieces import PACKAGE, PLUGINS, defects, pieces
from edgekit.ops.registry import operator, stems
from edgekit.ops.shapes import evaluate
from edgekit.ops.spec import OpSpec

SPECS = [operator(stem) for stem in stems()]
NATIVE = [spec for spec in SPECS if not spec.trace_only]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_nothing_is_missing_or_stale(spec: OpSpec) -> None:
    assert defects(spec) == []


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_specification_belongs_to_its_files(spec: OpSpec) -> None:
    assert import_module(f"edgekit.ops.specs.{spec.stem}").SPEC is spec
    assert operator(spec.name) is operator(spec.stem) is operator(f"{spec.domain}::{spec.name}") is spec
    module = import_module(f"edgekit.ops.{spec.stem}")
    assert callable(getattr(module, spec.stem))
    assert callable(module.reference)


@pytest.mark.parametrize("spec", NATIVE, ids=lambda spec: spec.name)
def test_the_cases_are_worth_the_name(spec: OpSpec) -> None:
    """Names are unique, every variant of the operands occurs, both cache rules too, and values repeat."""
    cases = spec.cases()
    assert len({case.name for case in cases}) == len(cases) >= 5
    variants = {tuple(case.attributes[name] for name in spec.variants) for case in cases}
    assert len(variants) == 2 ** len(spec.variants)
    assert {case.in_place for case in cases} == {True, False}
    for case in cases:
        again = case.inputs("float32")
        for name, array in case.inputs("float32").items():
            assert array.tobytes() == again[name].tobytes(), (case.name, name)


@pytest.mark.parametrize("spec", NATIVE, ids=lambda spec: spec.name)
def test_the_shape_function_tells_what_the_reference_gives(spec: OpSpec) -> None:
    from tests.ops.compare import expected_outputs

    for case in spec.cases():
        inputs = case.inputs("float64")
        shapes = spec.output_shapes(case.attributes, {name: array.shape for name, array in inputs.items()})
        outputs = expected_outputs(spec, case, inputs)
        assert shapes == {name: array.shape for name, array in outputs.items()}, case.name


def test_the_specification_of_an_operator_of_traces_is_that_of_its_reference() -> None:
    spec = operator("CausalAttention")
    attributes = spec.complete({"num_heads": 6, "kv_heads": 2, "scale": 0.5, "window": 0, "softcap": 0.0})
    sizes = {"B": 2, "S": 3, "P": 4, "L": 9, "D": 8, "H": 6, "G": 2}
    shapes = {o.name: tuple(evaluate(dim, sizes) for dim in o.forms[0].dims) for o in spec.inputs}
    inputs = {
        name: torch.ones(shape, dtype=torch.int64 if name == "attention_mask" else torch.float32)
        for name, shape in shapes.items()
    }
    outputs = spec.reference(attributes, inputs)
    assert spec.output_shapes(attributes, shapes) == {name: tuple(x.shape) for name, x in outputs.items()}


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Path, Path]:
    """The operator package and the native sources, to damage."""
    package, plugins = tmp_path / "ops", tmp_path / "plugins"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PLUGINS, plugins)
    for spec in NATIVE:  # Documentation that is still to be written must not hide what is tested here.
        (plugins / spec.stem / "README.md").touch()
        (plugins / spec.stem / "README.md").write_text("text")
    return package, plugins


ALL_PIECES = [(spec, piece.role) for spec in SPECS for piece in pieces(spec)]


@pytest.mark.parametrize(("spec", "role"), ALL_PIECES, ids=[f"{spec.name}-{role}" for spec, role in ALL_PIECES])
def test_a_missing_piece_is_reported(spec: OpSpec, role: str, copied: tuple[Path, Path]) -> None:
    assert defects(spec, *copied) == []
    path = next(piece.path for piece in pieces(spec, *copied) if piece.role == role)
    path.unlink()
    assert defects(spec, *copied) == [f"{role} is missing: {path}"]


def test_an_empty_piece_is_reported(copied: tuple[Path, Path]) -> None:
    spec = operator("TPAAttention")
    kernel = copied[1] / spec.stem / "cpu.cpp"
    kernel.write_text("\n")
    assert defects(spec, *copied) == [f"CPU kernel is missing: {kernel}"]


def test_a_file_without_its_function_is_reported(copied: tuple[Path, Path]) -> None:
    spec = operator("TPAAttention")
    body = copied[0] / "functions" / "tpa_attention.py"
    body.write_text("def something_else():\n    pass\n")
    assert defects(spec, *copied) == [f"ONNX function body does not define `function`: {body}"]


def test_a_stale_header_is_reported(copied: tuple[Path, Path]) -> None:
    spec = operator("TPAAttention")
    changed = dataclasses.replace(spec, attributes=spec.attributes[1:])
    (defect,) = defects(changed, *copied)
    assert "generated.h is stale: run `python -m edgekit.ops.generate`" in defect


def test_a_missing_tolerance_source_or_meaning_is_reported(copied: tuple[Path, Path]) -> None:
    spec = operator("TPAAttention")
    axis = dataclasses.replace(spec.axes[0], meaning=" ")
    changed = dataclasses.replace(
        spec, tolerances={"float32": spec.tolerances["float32"]}, source="", axes=(axis, *spec.axes[1:])
    )
    assert defects(changed, *copied) == [
        "no tolerance for float16, bfloat16, float64",
        "the specification has no source",
        "B has no meaning",
    ]


def test_an_operator_of_which_only_the_specification_exists_is_reported(copied: tuple[Path, Path]) -> None:
    fake = dataclasses.replace(operator("TPAAppend"), name="Unfinished", stem="unfinished")
    assert len(defects(fake, *copied)) == len(pieces(fake, *copied)) - 1  # the shared numerics are there
    traced = dataclasses.replace(fake, trace_only="a reason")
    assert len(defects(traced, *copied)) == 2
