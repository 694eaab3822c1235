"""Predicted memory beside what TensorRT-RTX reports for engines that are built here, without a GPU."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path

import pytest

from edgekit.build.job import Job
from edgekit.build.process import Built, build_in_process
from edgekit.build.profile import Limits, decoder_profiles
from edgekit.bundle import Bundle, read_bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint
from edgekit.plan.activations import activation_memory
from edgekit.plan.model_sizes import model_sizes
from edgekit.plan.storage import Compression, weight_bytes
from edgekit.progress import SilentProgress
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
    "max_position_embeddings": 6000,
}
#: The buffers that caches are written to have the exporter's longest context: all of the model's.
NEW, CONTEXT = 128, 6000


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


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_a_small_model(tmp_path: Path, dtype: str) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "checkpoint", "qwen3", **SIZES))
    built = engine(export(checkpoint, tmp_path / "bundle", "tensorrt", dtype), tmp_path, NEW, CONTEXT).build
    sizes = model_sizes(checkpoint.config)
    weights = weight_bytes(sizes, dtype, CONTEXT, Compression()).value
    assert built.weights_bytes == pytest.approx(weights, rel=0.01)
    activations = activation_memory(sizes, dtype, 1, NEW, CONTEXT).value
    assert built.activation_bytes == pytest.approx(activations, rel=0.10)
    # The mask is of new tokens, not of all: two bytes for CONTEXT squared would be 72 MB alone.
    assert (built.activation_bytes or 0) < 40e6


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_smollm2(tmp_path: Path, dtype: str) -> None:
    checkpoint = open_checkpoint("smollm2-135m")
    options = ExportOptions(dtype=dtype, form="tensorrt", max_context=2048)
    bundle = bundle_from_checkpoint(checkpoint, tmp_path / "bundle", options, progress=SilentProgress())
    built = engine(read_bundle(bundle), tmp_path, 128, 2048)
    sizes = model_sizes(checkpoint.config)
    assert built.build.weights_bytes == pytest.approx(weight_bytes(sizes, dtype, 2048, Compression()).value, rel=0.01)
    activations = activation_memory(sizes, dtype, 1, 128, 2048).value
    assert built.build.activation_bytes == pytest.approx(activations, rel=0.10)
