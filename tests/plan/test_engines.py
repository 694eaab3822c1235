"""Predicted memory beside what TensorRT-RTX reports for engines that are built here, without a GPU."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path

import pytest

from edgekit import contract
from edgekit.build.job import Job
from edgekit.build.process import Built, build_in_process
from edgekit.build.profile import Limits, decoder_profiles
from edgekit.bundle import Bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.plan.activations import activation_memory
from edgekit.plan.model_sizes import model_sizes
from edgekit.plan.storage import Compression, weight_bytes
from tests.parity.tiny_models import export, write_checkpoint
from tests.tools import lacking

#: Large enough for what grows with the sizes to be more than the constant, in seconds.
SIZES = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 8192,
}
#: The capacity is a number in the graph: what the exporter serves by default.
NEW, CONTEXT = 128, 8192


def engine(bundle: Bundle, folder: Path, new: int, context: int) -> Built:
    """The engine with the profiles that `edgekit build` gives it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("TensorRT-RTX is installed on x86-64 Linux only")
    if importlib.util.find_spec("tensorrt_rtx") is None:
        lacking("tensorrt-rtx-cu13 is not installed")
    job = Job(
        model=str(bundle.graph),
        destination=str(folder / "engine"),
        backend="tensorrt-rtx",
        device_kind="rtx",
        profiles=decoder_profiles(Limits(1, new, context), in_place=True),
        compute_capabilities=("89",),
    )
    return build_in_process(job)


@pytest.mark.parametrize("dtype", ["fp16", "int8", "fp32"])
def test_a_small_model(tmp_path: Path, dtype: str) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "checkpoint", "qwen3", **SIZES))
    bundle = export(checkpoint, tmp_path / "bundle", "tensorrt", dtype)
    built = engine(bundle, tmp_path, NEW, CONTEXT).build
    sizes = model_sizes(checkpoint.config)
    weights = weight_bytes(sizes, dtype, CONTEXT, Compression()).value
    assert built.weights_bytes == pytest.approx(weights, rel=0.01)
    activations = activation_memory(sizes, dtype, 1, NEW, CONTEXT).value
    assert built.activation_bytes == pytest.approx(activations, rel=0.10)
    assert bundle.manifest.cache.kind == contract.CACHE_SHARED
    # The mask is of new tokens, not of all: two bytes for CONTEXT squared would be 134 MB alone.
    assert (built.activation_bytes or 0) < (120e6 if dtype == "fp32" else 40e6)


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_smollm2(tmp_path: Path, dtype: str) -> None:
    checkpoint = open_checkpoint("smollm2-135m")
    built = engine(export(checkpoint, tmp_path / "bundle", "tensorrt", dtype), tmp_path, NEW, CONTEXT)
    sizes = model_sizes(checkpoint.config)
    assert built.build.weights_bytes == pytest.approx(
        weight_bytes(sizes, dtype, CONTEXT, Compression()).value, rel=0.01
    )
    activations = activation_memory(sizes, dtype, 1, NEW, CONTEXT).value
    assert built.build.activation_bytes == pytest.approx(activations, rel=0.10)
