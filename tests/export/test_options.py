"""What an export may be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import ExportError
from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint
from edgekit.export.estimate import BASE_BYTES, estimate
from edgekit.progress import SilentProgress
from tests.rewrite.tiny_graphs import Forms


@pytest.mark.parametrize(
    ("options", "rule", "fact"),
    [
        ({"dtype": "int5"}, "dtype must be one of fp32, fp16, int8, int4", "'int5'"),
        ({"dtype": "int4", "form": "onnx"}, "form must be one of ort, portable, tensorrt, jetpack6", "'onnx'"),
        ({"dtype": "int4", "block_size": 48}, "block_size must be one of 16, 32, 64, 128", "48"),
    ],
)
def test_unknown_values_are_refused(options: dict[str, Any], rule: str, fact: str) -> None:
    with pytest.raises(ExportError) as raised:
        ExportOptions(**options)
    assert raised.value.rule == rule
    assert fact in raised.value.fact


def test_a_longer_context_than_the_model_serves_is_refused(forms: Forms, tmp_path: Path) -> None:
    options = ExportOptions("fp32", max_context=257)
    with pytest.raises(ExportError) as raised:
        bundle_from_checkpoint(forms.checkpoint("llama"), tmp_path / "bundle", options, progress=SilentProgress())
    assert "257 tokens were asked for, the model serves 256" in raised.value.fact
    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_quantiser() -> None:
    assert ExportOptions("fp32").quantization is None
    assert ExportOptions("fp16").quantization is None
    settings = ExportOptions("int4", form="portable", block_size=64, calibration_sequences=3).quantization
    assert settings is not None
    assert (settings.bits, settings.block, settings.symmetric, settings.sequences) == (4, 64, True, 3)
    other = ExportOptions("int8").quantization
    assert other is not None
    assert (other.bits, other.symmetric) == (8, False)


def test_activations() -> None:
    assert {dtype: ExportOptions(dtype).activations for dtype in ("fp32", "fp16", "int8", "int4")} == {
        "fp32": "float32",
        "fp16": "float16",
        "int8": "float32",
        "int4": "float32",
    }


def test_the_estimate_follows_the_bits(forms: Forms) -> None:
    checkpoint = forms.checkpoint("llama-untied")
    weights = sum(checkpoint.array(name).size for name in checkpoint.names())
    made = {dtype: estimate(checkpoint, ExportOptions(dtype)) for dtype in ("fp32", "fp16", "int8", "int4")}
    sizes = [made[dtype].bytes_on_disk for dtype in ("fp32", "fp16", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[1] == 2 * weights
    assert made["int4"].seconds > made["int8"].seconds
    assert all(one.peak_memory_bytes > BASE_BYTES for one in made.values())
