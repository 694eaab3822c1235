"""Engines with the plugin of TTSparseLinear, built by TensorRT-RTX on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.build.conftest import Build
from tests.build.graphs import SIZES, one_operator


@pytest.mark.parametrize("flags", [{}, {"low_rank": 0}, {"bias": 0}, {"low_rank": 0, "bias": 0}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_compressed_layer_is_one_plugin_layer(build: Build, library: Path, dtype: str, flags: dict[str, int]) -> None:
    model = one_operator("TTSparseLinear", dtype, attributes=flags)
    built = build(model, [library], expected={"TTSparseLinear": 1})
    assert built.get("layers") == {"PLUGIN_V3": 1}, built
    assert [(o["name"], o["dtype"], o["shape"]) for o in built["outputs"]] == [("y", dtype, [-1, -1, SIZES["O"]])]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"attributes": {"low_rank": 2}}, "low_rank is 2, not 0 or 1"),
        ({"attributes": {"factor_bits": 4}}, "factor_bits is 4, not 0"),
        ({"attributes": {"value_bits": 8}}, "value_bits is 8, not 0"),
        ({"dtypes": {"columns": "int64"}}, "columns is of TensorRT type 8"),
        ({"dtypes": {"b": "float32"}}, "b is of TensorRT type 0"),
        ({"sizes": {"Z/2": 4}}, "values is [9,6] for [O,Z], but by columns Z is 8"),
        ({"sizes": {"K": 70000}}, "columns of 16 bits reach 65536 inputs, x has 70000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refused_compressed_layer_says_what_is_wrong(
    build: Build, library: Path, change: dict[str, object], says: str
) -> None:
    refused = build(one_operator("TTSparseLinear", "float16", function=False, **change), [library])
    assert says in refused.get("fact", refused)
    assert "edgekit::TTSparseLinear" in refused["stderr"]


def test_the_body_of_a_compressed_layer_builds(build: Build) -> None:
    built = build(one_operator("TTSparseLinear", "float16"))
    assert "PLUGIN_V3" not in built["layers"], built
    assert built["layers"]["SCATTER"] == 1
    assert built["layers"]["MATRIX_MULTIPLY"] == 3
