"""SmolLM2-135M-Instruct on its real weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekit.bundle import read_bundle
from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.evaluate.of_bundle import perplexity_of_bundle
from edgekit.evaluate.text import encoded_text
from edgekit.evaluate.windows import WindowPlan
from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint
from edgekit.parity.check import parity_of
from edgekit.parity.prompts import shipped_prompts
from edgekit.parity.reference_perplexity import perplexity_of_checkpoint
from edgekit.progress import SilentProgress

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint("smollm2-135m")


@pytest.fixture
def _all_threads() -> object:
    """These matrices are worth more than one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_all_threads")
def test_int8_passes(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ExportOptions(dtype="int8", max_context=1024)
    bundle = read_bundle(bundle_from_checkpoint(checkpoint, tmp_path / "int8", options, progress=SilentProgress()))
    report = parity_of(bundle, checkpoint, prompts=shipped_prompts()[2:4], tokens=8)
    assert report.failure is None
    assert max(stage.difference.relative_error for stage in report.stages if stage.mode != "runtime") < 1e-5

    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    text, plan = encoded_text(Path(__file__).parents[2] / "LICENSE", bundle), WindowPlan(256, 256)
    found = perplexity_of_bundle(bundle, text, plan, max_windows=2)
    reference = perplexity_of_checkpoint(checkpoint, text, plan, max_windows=2)
    assert found.perplexity / reference.perplexity == pytest.approx(1, abs=0.03)
    assert reference.perplexity < 60  # a model that reads nothing into it has thousands


@pytest.mark.slow
@pytest.mark.usefixtures("_all_threads")
def test_float32_answers_as_pytorch_does(checkpoint: Checkpoint, tmp_path: Path) -> None:
    bundle = read_bundle(
        bundle_from_checkpoint(checkpoint, tmp_path / "fp32", ExportOptions(dtype="fp32"), progress=SilentProgress())
    )
    report = parity_of(bundle, checkpoint, tokens=200)
    report.require()
    assert report.model.greedy_prefixes == (200,) * 8
    assert max(stage.difference.max_abs_error for stage in report.stages if stage.name == "logits") < 1e-3
