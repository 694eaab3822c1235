"""The engines on which a GPU's kernels are held to their reference: that they build needs no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.ops.registry import operator
from edgekit.ops.spec import OpSpec
from tests.build.conftest import Build
from tests.ops.backends.tensorrt_plugin import static_model

SPECS = [operator("TPAAttention"), operator("TPAAppend"), operator("TTSparseLinear")]


PLACES = [(spec, in_place) for spec in SPECS for in_place in sorted({case.in_place for case in spec.cases()})]


@pytest.mark.parametrize(("spec", "in_place"), PLACES, ids=[f"{spec.name}-{place}" for spec, place in PLACES])
def test_they_build(build: Build, library: Path, spec: OpSpec, in_place: bool) -> None:
    case = next(case for case in spec.cases() if case.in_place == in_place)
    inputs = case.inputs("float16")
    attributes = spec.complete(dict(case.attributes))
    built = build(static_model(spec, attributes, inputs), [library], expected={spec.name: 1}, axes={})
    assert built.get("plugins") == {spec.name: 1}, built
    shapes = spec.output_shapes(attributes, {name: array.shape for name, array in inputs.items()})
    assert {output["name"]: tuple(output["shape"]) for output in built["outputs"]} == shapes
