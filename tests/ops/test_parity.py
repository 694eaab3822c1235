"""Every form of every operator against its float64 reference: operator × backend × case × dtype.

Backends are the files of `tests/ops/backends`; operators and cases come from their specifications. Adding one of them
changes nothing here.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgekit.ops.registry import operator, stems
from edgekit.ops.spec import Case, OpSpec
from tests.ops.compare import assert_close, assert_rest_untouched, expected_outputs

BACKENDS = sorted(path.stem for path in (Path(__file__).parent / "backends").glob("[!_]*.py"))


def backend_named(name: str) -> ModuleType:
    return import_module(f"tests.ops.backends.{name}")


def grid() -> list[Any]:
    found = []
    for spec in map(operator, stems()):
        for case in [] if spec.trace_only else spec.cases():
            for backend in BACKENDS:
                module = backend_named(backend)
                # A backend may lack an operator altogether; what it has must pass every case.
                if getattr(module, "lacks", lambda _: None)(spec) is None:
                    for dtype in module.DTYPES:
                        name = f"{spec.name}-{backend}-{case.name}-{dtype}"
                        marks = getattr(module, "MARKS", ())
                        found.append(pytest.param(spec, backend, case, dtype, id=name, marks=marks))
    return found


@pytest.mark.parametrize(("spec", "backend", "case", "dtype"), grid())
def test_equals_the_reference(spec: OpSpec, backend: str, case: Case, dtype: str) -> None:
    module = backend_named(backend)
    if reason := module.available():
        pytest.skip(reason)
    inputs = case.inputs(dtype)
    expected = expected_outputs(spec, case, inputs)
    given = {name: array.copy() for name, array in inputs.items()}
    outputs = module.run(spec, dict(case.attributes), given, case.in_place)
    assert list(outputs) == [operand.name for operand in spec.active_outputs(case.attributes)]
    of_backend = getattr(module, "tolerance", lambda spec, attributes, dtype: spec.tolerances[dtype])
    for name, output in outputs.items():
        assert output.dtype.name == dtype
        assert_close(name, output, expected[name], of_backend(spec, case.attributes, dtype))
    if case.in_place:
        assert_rest_untouched(spec, case.attributes, inputs, outputs)


def test_there_are_backends() -> None:
    assert {"torch_blocked", "onnx_function"} <= set(BACKENDS)
