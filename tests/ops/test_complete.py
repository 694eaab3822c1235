"""Every operator has all of its pieces, and nothing generated is stale; and these checks notice what they are for."""

from __future__ import annotations

import dataclasses
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch

from edgekit.ops.pieces import PACKAGE, PLUGINS, TESTS, defects, pieces
from edgekit.ops.registry import operator, stems
from edgekit.ops.shapes import evaluate
from edgekit.ops.spec import OpSpec
from tests.ops.combinations import FEW, pairs

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
    variants = [{name: case.attributes[name] for name in spec.variants} for case in cases]
    assert all(values in spec.combinations() for values in variants)
    assert all(values in variants for values in spec.combinations()) or len(spec.combinations()) > FEW
    assert set().union(*map(pairs, variants)) == set().union(*map(pairs, spec.combinations()))
    appends = any(output.past for output in spec.outputs)
    assert {case.in_place for case in cases} == ({True, False} if appends else {False})
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
def copied(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The operator package, the native sources and the tests of operators, to damage."""
    assert TESTS is not None
    copies = tmp_path / "ops", tmp_path / "plugins", tmp_path / "tests"
    for source, copy in zip((PACKAGE, PLUGINS, TESTS), copies, strict=True):
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copies


ALL_PIECES = [(spec, piece.role) for spec in SPECS for piece in pieces(spec)]


@pytest.mark.parametrize(("spec", "role"), ALL_PIECES, ids=[f"{spec.name}-{role}" for spec, role in ALL_PIECES])
def test_a_missing_piece_is_reported(spec: OpSpec, role: str, copied: tuple[Path, Path, Path]) -> None:
    assert defects(spec, *copied) == []
    path = next(piece.path for piece in pieces(spec, *copied) if piece.role == role)
    of_this_file = [piece.role for piece in pieces(spec, *copied) if piece.path == path]
    path.unlink()
    assert defects(spec, *copied) == [f"{other} is missing: {path}" for other in of_this_file]


@pytest.mark.parametrize("spec", NATIVE, ids=lambda spec: spec.name)
def test_every_native_file_is_a_piece_with_a_role_of_its_own(spec: OpSpec) -> None:
    found = pieces(spec)
    assert len({piece.role for piece in found}) == len(found)
    assert set((PLUGINS / spec.stem).iterdir()) <= {piece.path for piece in found}
    assert not [piece.role for piece in found if piece.role.startswith("native source")]


def test_the_parts_of_the_kernels_are_pieces() -> None:
    found = {piece.path.name: piece.role for piece in pieces(operator("TPAAttention"))}
    for name, role in (
        ("kernel_decode.cuh", "CUDA kernel, decode"),
        ("kernel_float16.cu", "CUDA kernel, compiled for float16"),
        ("launch.cpp", "launcher of the CUDA kernel"),
        ("cpu_task.h", "CPU kernel, task"),
        ("host_test.cpp", "CUDA kernel on the CPU, for tests"),
        ("device.cuh", "shared header device.cuh"),
        ("translate.py", "ONNX translation, for all operators"),
        ("torch_op.py", "its fake and its gradient, for all operators"),
        ("test_parity.py", "parity test"),
        ("cuda_on_host.py", "parity backend cuda_on_host"),
    ):
        assert found[name] == role
    assert found["trt_creator.h"] == "plugin fields, for all operators"


def test_a_kernel_that_is_compiled_for_no_type_is_reported(copied: tuple[Path, Path, Path]) -> None:
    spec = operator("TPAAttention")
    folder = copied[1] / spec.stem
    for path in folder.glob("*.cu"):
        path.unlink()
    assert defects(spec, *copied) == [f"CUDA kernel, compiled is missing: {folder / 'kernel.cu'}"]


def test_a_reference_without_its_operator_for_torch_is_reported(copied: tuple[Path, Path, Path]) -> None:
    spec = operator("TPAAttention")
    path = copied[0] / "tpa_attention.py"
    path.write_text(path.read_text().replace("\nOP = register(", "\nOTHER = register("))
    assert defects(spec, *copied) == [f"torch.library operator does not define `OP`: {path}"]


def test_an_installed_package_has_neither_tests_nor_documentation(copied: tuple[Path, Path, Path]) -> None:
    for path in copied[1].rglob("*.md"):
        path.unlink()
    for spec in NATIVE:
        assert defects(spec, *copied[:2], None) == []


def test_an_empty_piece_is_reported(copied: tuple[Path, Path, Path]) -> None:
    spec = operator("TPAAttention")
    kernel = copied[1] / spec.stem / "cpu.cpp"
    kernel.write_text("\n")
    assert defects(spec, *copied) == [f"CPU kernel is missing: {kernel}"]


def test_a_file_without_its_function_is_reported(copied: tuple[Path, Path, Path]) -> None:
    spec = operator("TPAAttention")
    body = copied[0] / "functions" / "tpa_attention.py"
    body.write_text("def something_else():\n    pass\n")
    assert defects(spec, *copied) == [f"ONNX function body does not define `function`: {body}"]


def test_a_stale_header_is_reported(copied: tuple[Path, Path, Path]) -> None:
    spec = operator("TPAAttention")
    changed = dataclasses.replace(spec, attributes=spec.attributes[1:])
    (defect,) = defects(changed, *copied)
    assert "generated.h is stale: run `python -m edgekit.ops.generate`" in defect


def test_a_missing_tolerance_source_or_meaning_is_reported(copied: tuple[Path, Path, Path]) -> None:
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


def test_an_operator_of_which_only_the_specification_exists_is_reported(copied: tuple[Path, Path, Path]) -> None:
    fake = dataclasses.replace(operator("TPAAppend"), name="Unfinished", stem="unfinished")
    found = {defect.split(" is missing")[0] for defect in defects(fake, *copied)}
    shared = {"plugin fields, for all operators", "parity test"}
    shared |= {role for role in (piece.role for piece in pieces(fake)) if "all operators" in role or "backend" in role}
    assert found == {piece.role for piece in pieces(fake, *copied)} - shared
    assert {"specification", "torch.library operator", "CUDA kernel", "CUDA kernel, compiled", "CPU kernel"} <= found
    traced = dataclasses.replace(fake, trace_only="a reason")
    assert len(defects(traced, *copied)) == 2
