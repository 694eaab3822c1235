"""Whole decoders with edgekit's operators, built by TensorRT-RTX."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import pytest

from edgekit.build.profile import decoder_axes
from edgekit.rewrite.tensorrt_pipelines import JETPACK6, TENSORRT
from tests.build.conftest import Build
from tests.rewrite.tensorrt_forms import bound, t6_checkpoint, write_form

AXES = {name: astuple(sizes) for name, sizes in decoder_axes(batch=2, new=16, context=64, in_place=True).items()}


@pytest.fixture(scope="module")
def t6(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both forms of a random T6 model of two layers, in float16."""
    folder = tmp_path_factory.mktemp("t6")
    traced = bound(t6_checkpoint(folder / "checkpoint"), "float16")
    forms = {"tensorrt": TENSORRT, "jetpack6": JETPACK6}
    for name, pipeline in forms.items():
        write_form(traced, pipeline, folder / name, "float16")
    return {name: folder / name / "model.onnx" for name in forms}


@pytest.mark.parametrize("form", ["tensorrt", "jetpack6"])
def test_every_layer_of_t6_is_a_plugin(build: Build, library: Path, t6: dict[str, Path], form: str) -> None:
    built = build(t6[form], [library], expected={"TPAAttention": 2}, axes=AXES)
    assert built.get("plugins") == {"TPAAttention": 2}, built
    assert built["layers"]["PLUGIN_V3"] == 2
    outputs = {output["name"]: output for output in built["outputs"]}
    assert outputs["logits"]["dtype"] == "float32"
    assert outputs["present.1.key_b"]["dtype"] == "float16"
    assert outputs["present.1.key_b"]["shape"] == [-1, -1, 2, 10]
    assert built["weights_bytes"] > 2 * 83 * 30


def test_t6_runs_on_the_function_body_without_the_library(build: Build, t6: dict[str, Path]) -> None:
    built = build(t6["tensorrt"], axes=AXES)
    assert "layers" in built, built
    assert built["plugins"] == {}
    assert built["layers"]["SOFTMAX"] == 2


def test_t6_for_10_3_needs_the_library(build: Build, t6: dict[str, Path]) -> None:
    refused = build(t6["jetpack6"], axes=AXES)
    assert "(TPAAttention)" in refused["fact"]


def test_how_many_logits_are_kept_needs_its_range(build: Build, library: Path, t6: dict[str, Path]) -> None:
    axes = {name: sizes for name, sizes in AXES.items() if name != "num_logits_to_keep"}
    assert build(t6["tensorrt"], [library], axes=axes)["fact"].startswith("num_logits_to_keep is one")
