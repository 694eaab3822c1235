"""Bundles of factorised models, built by TensorRT-RTX: the trained T6, and a Llama with each kind of factor."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import pytest

from edgekit.build.profile import decoder_axes
from edgekit.bundle import Bundle
from edgekit.checkpoint import open_checkpoint
from tests.build.conftest import Build
from tests.parity.tiny_models import export, write_checkpoint

AXES = {name: astuple(sizes) for name, sizes in decoder_axes(batch=2, new=16, context=64, in_place=True).items()}


@pytest.fixture(scope="module")
def t6_small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    checkpoint = open_checkpoint(Path(__file__).parents[2] / "exports/t6-small")
    return export(checkpoint, tmp_path_factory.mktemp("t6-small") / "bundle", "tensorrt", "fp16")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An exact, a spectral and a latent-key layer."""
    folder = tmp_path_factory.mktemp("llama_tpa")
    return export(open_checkpoint(write_checkpoint(folder / "checkpoint", "llama_tpa")), folder / "bundle", "tensorrt")


def test_the_trained_t6(build: Build, library: Path, t6_small: Bundle) -> None:
    built = build(t6_small.graph, [library], expected={"TPAAttention": 5}, axes=AXES)
    assert built.get("plugins") == {"TPAAttention": 5}, built
    assert built["layers"]["PLUGIN_V3"] == 5
    outputs = {output["name"]: output for output in built["outputs"]}
    assert outputs["logits"]["dtype"] == "float32"
    assert outputs["logits"]["shape"][-1] == 4096
    assert {
        suffix: (outputs[f"present.4.{suffix}"]["dtype"], outputs[f"present.4.{suffix}"]["shape"][2:])
        for suffix in ("key_a", "key_b", "value_a", "value_b")
    } == {
        suffix: ("float16", [2, 6 if suffix.endswith("a") else 48])
        for suffix in ("key_a", "key_b", "value_a", "value_b")
    }
    # Half precision: two bytes for each of 3,055,872 parameters.
    assert built["weights_bytes"] >= 2 * 3_055_872


def test_a_converted_llama_with_every_kind_of_factor(build: Build, library: Path, converted: Bundle) -> None:
    expected = {use.name: use.nodes for use in converted.manifest.operators}
    assert expected["TPAAppend"] == 2
    assert expected["TPAAttention"] >= 1
    built = build(converted.graph, [library], expected=expected, axes=AXES)
    assert built.get("plugins") == expected, built
    assert built["layers"]["PLUGIN_V3"] == sum(expected.values())


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_plain_caches_are_written_in_place(build: Build, tmp_path: Path, dtype: str) -> None:
    """TensorScatter becomes TensorRT's own layer for it, two a decoder layer."""
    bundle = export(
        open_checkpoint(write_checkpoint(tmp_path / "checkpoint", "llama")), tmp_path / "bundle", "tensorrt", dtype
    )
    built = build(bundle.graph, axes=AXES)
    assert "layers" in built, built
    assert built["layers"]["KV_CACHE_UPDATE"] == 2 * 3
    outputs = {output["name"]: output for output in built["outputs"]}
    assert outputs["present.2.value"]["shape"] == [-1, 2, 256, 16]
    assert outputs["logits"]["dtype"] == "float32"
