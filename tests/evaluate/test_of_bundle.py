"""Perplexity of a real graph, against PyTorch and against a plain computation."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgekit import evaluate
from edgekit.bundle import Bundle
from edgekit.checkpoint import Checkpoint
from edgekit.errors import EdgekitError
from edgekit.evaluate.of_bundle import perplexity_of_bundle
from edgekit.evaluate.perplexity import EncodedText
from edgekit.evaluate.text import encoded_text
from edgekit.evaluate.windows import WindowPlan, plan_of
from edgekit.models.registry import model_from_checkpoint
from edgekit.parity.reference_perplexity import perplexity_of_checkpoint
from edgekit.progress import SilentProgress


@pytest.fixture
def text(tmp_path: Path, bundle: Bundle) -> EncodedText:
    path = tmp_path / "text.txt"
    path.write_text("hello world — naïve café, 12345\n" * 12, encoding="utf-8")
    return encoded_text(path, bundle)


def plain_perplexity(checkpoint: Checkpoint, tokens: list[int], context: int, stride: int) -> tuple[float, int]:
    """The usual strided evaluation (Hugging Face, "Perplexity of fixed-length models"), token by token."""
    model = model_from_checkpoint(checkpoint)
    nats, count, covered = 0.0, 0, 0
    for start in range(0, len(tokens), stride):
        end = min(start + context, len(tokens))
        ids = torch.tensor([tokens[start:end]])
        logits = model(ids, torch.ones_like(ids), model.empty_cache(1), torch.tensor([0])).logits[0].double()
        for place in range(max(start + 1, covered), end):
            nats -= float(logits[place - start - 1].log_softmax(0)[tokens[place]])
            count += 1
        covered = end
        if end == len(tokens):
            break
    return math.exp(nats / count), count


@pytest.mark.parametrize("stride", [40, 13])
def test_the_usual_evaluation(stride: int, bundle: Bundle, checkpoint: Checkpoint, text: EncodedText) -> None:
    expected, count = plain_perplexity(checkpoint, text.tokens, 40, stride)
    plan = WindowPlan(40, stride)
    found = perplexity_of_bundle(bundle, text, plan, threads=1)
    reference = perplexity_of_checkpoint(checkpoint, text, plan)
    assert found.tokens == reference.tokens == count
    assert found.perplexity == pytest.approx(expected, rel=1e-4)
    assert reference.perplexity == pytest.approx(expected, rel=1e-6)


def test_windows_longer_than_a_chunk(bundle: Bundle, checkpoint: Checkpoint, text: EncodedText) -> None:
    plan = WindowPlan(200, 200)
    expected, _ = plain_perplexity(checkpoint, text.tokens, 200, 200)
    assert perplexity_of_bundle(bundle, text, plan, threads=1).perplexity == pytest.approx(expected, rel=1e-4)


def test_a_bos_before_each_window(bundle: Bundle, text: EncodedText) -> None:
    plain = perplexity_of_bundle(bundle, text, plan_of(40, None, None), threads=1)
    with_bos = perplexity_of_bundle(bundle, text, plan_of(40, None, 0), threads=1)
    assert with_bos.tokens == len(text.tokens) > plain.tokens


def test_a_second_measurement_takes_the_first_over_unless_told_otherwise(bundle: Bundle, text: EncodedText) -> None:
    class Stages(SilentProgress):
        def __init__(self) -> None:
            self.names: list[str] = []

        def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
            self.names.append(name)

    plan, again, restarted = WindowPlan(40, 40), Stages(), Stages()
    first = perplexity_of_bundle(bundle, text, plan, threads=1)
    assert perplexity_of_bundle(bundle, text, plan, threads=1, progress=again) == first
    assert again.names == []
    assert perplexity_of_bundle(bundle, text, plan, threads=1, resume=False, progress=restarted) == first
    assert restarted.names == ["loading the model", "measuring perplexity (onnxruntime-cpu)"]


def test_a_text_is_utf8(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(EdgekitError, match="byte 3"):
        encoded_text(path, bundle)


def test_a_text_knows_its_bytes_and_tokens(text: EncodedText) -> None:
    assert text.bytes == 12 * len("hello world — naïve café, 12345\n".encode())
    assert text.tokens[:2] != text.tokens[2:4]
    assert len(text.sha256) == 64


def test_the_device_needs_neither_torch_nor_the_exporter() -> None:
    modules = [f"edgekit.evaluate.{path.stem}" for path in Path(evaluate.__file__).parent.glob("[!_]*.py")]
    assert len(modules) > 3
    code = f"import sys, json, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"torch", "onnx", "transformers", "edgekit.parity", "edgekit.models", "edgekit.checkpoint"}
