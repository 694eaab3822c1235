"""The operators, found by their files in `edgekit/ops/specs/`. Needs no torch."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from edgekit.ops.spec import OperatorError, OpSpec

SPECS = Path(__file__).parent / "specs"


def stems() -> list[str]:
    """The stem of every operator, sorted."""
    return sorted(path.stem for path in SPECS.glob("*.py") if not path.stem.startswith("_"))


def operators() -> list[str]:
    """The ONNX name of every operator, in the order of their stems."""
    return [_spec(stem).name for stem in stems()]


def operator(name: str) -> OpSpec:
    """The operator of this ONNX name (`TPAAttention`, `edgekit::TPAAttention`) or stem (`tpa_attention`).

    Raises:
        OperatorError: there is none; the message lists the valid names.
    """
    wanted = name.rsplit("::", 1)[-1]
    specs = [_spec(stem) for stem in stems()]
    for spec in specs:
        if wanted in (spec.name, spec.stem):
            return spec
    names = [spec.name for spec in specs]
    near = get_close_matches(wanted.lower(), [n.lower() for n in names] + [spec.stem for spec in specs], 1)
    hint = f" (did you mean {_canonical(near[0], specs)}?)" if near else ""
    choices = f"choose one of {', '.join(names)}"
    raise OperatorError("an operator must be one of edgekit's", f"{name!r} is none{hint}", choices)


def _canonical(near: str, specs: list[OpSpec]) -> str:
    return next(spec.name for spec in specs if near in (spec.name.lower(), spec.stem))


def _spec(stem: str) -> OpSpec:
    spec: OpSpec = import_module(f"edgekit.ops.specs.{stem}").SPEC
    return spec
