"""The pieces of an operator: which files it consists of, and what is wrong with them. Needs no torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from edgekit.ops.generate import HEADER, header
from edgekit.ops.native_pieces import native_files, role
from edgekit.ops.spec import OpSpec

PACKAGE = Path(__file__).parent
_REPOSITORY = Path(__file__).parents[2] / "plugins"
#: Native sources: of the repository, or the copy that an installed package carries.
PLUGINS = _REPOSITORY if _REPOSITORY.is_dir() else Path(__file__).parents[1] / "native" / "sources"
#: Tests of the operators, in the repository only.
TESTS = _REPOSITORY.parent / "tests" / "ops" if _REPOSITORY.is_dir() else None
#: Each form other than the reference is held to it by one.
_BACKENDS = ("cuda", "cuda_on_host", "onnx_function", "onnx_native", "tensorrt_plugin", "torch_blocked")


@dataclass(frozen=True)
class Piece:
    """One file of an operator.

    Attributes:
        role: what the file is, for people.
        defines: the function or name that a Python file must define; empty for others.
    """

    role: str
    path: Path
    defines: str = ""


def pieces(spec: OpSpec, package: Path = PACKAGE, plugins: Path = PLUGINS, tests: Path | None = TESTS) -> list[Piece]:
    """Every file that the operator must have; those that exist in traces only have no native code and no body.

    Args:
        tests: of the operators; None in an installed package, which has none.
    """
    stem = spec.stem
    python = [
        Piece("specification", package / "specs" / f"{stem}.py", "SPEC"),
        Piece("PyTorch reference", package / f"{stem}.py", stem),
    ]
    if spec.trace_only:
        return python
    python += [
        Piece("torch.library operator", package / f"{stem}.py", "OP"),
        Piece("its fake and its gradient, for all operators", package / "torch_op.py", "register"),
        Piece("ONNX translation, for all operators", package / "translate.py", "translation_table"),
        Piece("ONNX function body", package / "functions" / f"{stem}.py", "function"),
        Piece("cases", package / "cases" / f"{stem}.py", "cases"),
    ]
    native = [Piece(role(path), path) for path in native_files(stem, plugins)]
    fields = Piece("plugin fields, for all operators", plugins / "common" / "trt_creator.h")
    native = [fields, *(piece for piece in native if piece.path != fields.path)]
    return [*python, *native, *_parity_pieces(tests)]


def _parity_pieces(tests: Path | None) -> list[Piece]:
    if tests is None:
        return []
    backends = sorted({*_BACKENDS, *(path.stem for path in (tests / "backends").glob("[!_]*.py"))})
    return [
        Piece("parity test", tests / "test_parity.py", "test_equals_the_reference"),
        *(Piece(f"parity backend {name}", tests / "backends" / f"{name}.py", "run") for name in backends),
    ]


def defects(spec: OpSpec, package: Path = PACKAGE, plugins: Path = PLUGINS, tests: Path | None = TESTS) -> list[str]:
    """What is missing or stale, in words; empty for a complete operator."""
    found = []
    for piece in pieces(spec, package, plugins, tests):
        if not piece.path.is_file() or not piece.path.read_bytes().strip():
            found.append(f"{piece.role} is missing: {piece.path}")
        elif piece.defines and piece.defines not in _top_level_names(piece.path):
            found.append(f"{piece.role} does not define `{piece.defines}`: {piece.path}")
    if spec.trace_only:
        return found
    generated = plugins / spec.stem / HEADER
    if generated.is_file() and generated.read_text(encoding="utf-8") != header(spec):
        found.append(f"{generated} is stale: run `python -m edgekit.ops.generate`")
    if absent := [dtype for dtype in spec.dtypes if dtype not in spec.tolerances]:
        found.append(f"no tolerance for {', '.join(absent)}")
    for what in ("summary", "source"):
        if not getattr(spec, what).strip():
            found.append(f"the specification has no {what}")
    meanings = [(axis.name, axis.meaning) for axis in spec.axes]
    meanings += [(operand.name, operand.meaning) for operand in (*spec.inputs, *spec.outputs)]
    meanings += [(attribute.name, attribute.meaning) for attribute in spec.attributes]
    return found + [f"{name} has no meaning" for name, meaning in meanings if not meaning.strip()]


def _top_level_names(path: Path) -> set[str]:
    """What a Python file defines, read without importing it."""
    names: set[str] = set()
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names
