"""Bundles that the real exporter made of random models pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgekit.bundle import Bundle
from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.errors import BundleError, PromptError
from edgekit.parity.check import parity_of, pieces_of
from edgekit.parity.report import ParityReport
from tests.parity.tiny_models import CONFIGS, write_checkpoint

#: Short enough for a test, long enough for several pieces and for a window of 7.
PROMPTS = ("hello world, a text for a model that knows no words", "x = 12345 # ñ 🙂")
TOKENS = 24

Checkpoints = Callable[[str], Checkpoint]
Bundles = Callable[..., Bundle]


def compare(bundle: Bundle, checkpoint: Checkpoint, **options: object) -> ParityReport:
    return parity_of(bundle, checkpoint, **{"prompts": PROMPTS, "tokens": TOKENS, "threads": 1, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["ort", "portable"])
@pytest.mark.parametrize("name", CONFIGS)
def test_float32(name: str, form: str, tiny_bundle: Bundles, tiny_checkpoint: Checkpoints) -> None:
    report = compare(tiny_bundle(name, form), tiny_checkpoint(name))
    assert report.failure is None
    assert (report.activations, report.reference, report.weights) == ("float32", "original", ())
    assert report.model.greedy_prefixes == (TOKENS, TOKENS)
    assert report.model.kl_max < 1e-8
    layers = tiny_checkpoint(name).config["num_hidden_layers"]
    for mode in ("prefill", "chunked", "decode", "runtime"):
        names = [stage.name for stage in report.stages if stage.mode == mode]
        per_layer = 2 if mode == "runtime" else 3
        assert len(names) == per_layer * layers + 1 + (mode != "runtime")
        assert names[-1] == "logits"
    assert [stage.name for stage in report.stages][:5] == [
        "hidden.0", "cache.0.key", "cache.0.value", "hidden.1", "cache.1.key",
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["ort", "portable"])
def test_float16(form: str, tiny_bundle: Bundles, tiny_checkpoint: Checkpoints) -> None:
    report = compare(tiny_bundle("llama", form, "fp16"), tiny_checkpoint("llama"))
    assert report.failure is None
    assert report.activations == "float16"
    # It is not float32 under another name.
    assert max(stage.difference.relative_error for stage in report.stages) > 1e-4


@pytest.mark.parametrize(
    ("name", "form", "dtype"),
    [
        ("llama", "ort", "int4"),
        ("llama-untied", "ort", "int8"),
        ("qwen2", "ort", "int4"),
        ("gemma3_text", "ort", "int4"),
        ("qwen3", "portable", "int4"),
        ("gemma3_text", "portable", "int8"),
    ],
)
def test_the_graph_of_a_quantised_bundle_is_exact(
    name: str, form: str, dtype: str, tiny_bundle: Bundles, tiny_checkpoint: Checkpoints
) -> None:
    """Whether its choices are still the original's is another gate: random weights have no redundancy to round."""
    report = compare(tiny_bundle(name, form, dtype), tiny_checkpoint(name))
    assert (report.activations, report.reference) == ("int8", "dequantized")
    assert [weight.objection for weight in report.weights if weight.objection] == []
    assert [stage for stage in report.stages if stage.objection] == []
    exact = [stage for stage in report.stages if stage.mode != "runtime"]
    assert max(stage.difference.relative_error for stage in exact) < 1e-5
    rounded = [stage for stage in report.stages if stage.mode == "runtime"]
    assert max(stage.difference.relative_error for stage in rounded) > 1e-3
    names = {weight.name for weight in report.weights}
    layers = range(tiny_checkpoint(name).config["num_hidden_layers"])
    parts = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
    assert {f"model.layers.{i}.{part}.weight" for i in layers for part in parts} <= names
    assert "lm_head.weight" in names
    assert ("model.embed_tokens.weight" in names) is (form == "ort")


def test_a_quantised_bundle_that_passes_every_gate(tiny_bundle: Bundles, tiny_checkpoint: Checkpoints) -> None:
    report = compare(tiny_bundle("gemma3_text", "ort", "int8"), tiny_checkpoint("gemma3_text"))
    report.require()
    assert 0 < report.model.kl_mean < 0.03


def test_choices_that_differ_too_much_fail(tiny_bundle: Bundles, tiny_checkpoint: Checkpoints) -> None:
    report = compare(tiny_bundle("llama", "ort", "int4"), tiny_checkpoint("llama"))
    assert report.failure is not None
    assert report.failure.startswith("choices: ")
    assert min(report.model.greedy_prefixes) < TOKENS


def test_prompts_must_hold_text_and_fit(tiny_bundle: Bundles, tiny_checkpoint: Checkpoints) -> None:
    bundle, checkpoint = tiny_bundle("llama"), tiny_checkpoint("llama")
    for prompts in ([], ["", "text"]):
        with pytest.raises(PromptError, match="at least one token"):
            compare(bundle, checkpoint, prompts=prompts)
    with pytest.raises(PromptError, match="the longest prompt has 100 tokens, 200 follow, the context holds 256"):
        compare(bundle, checkpoint, prompts=["ab" * 50, "x"], tokens=200)


def test_another_model_is_refused(tiny_bundle: Bundles, tiny_checkpoint: Checkpoints) -> None:
    with pytest.raises(BundleError, match="the bundle's model_type is llama"):
        compare(tiny_bundle("llama"), tiny_checkpoint("qwen2"))
    with pytest.raises(BundleError, match="the bundle's num_hidden_layers is 3"):
        other = write_checkpoint(tiny_bundle("llama").path.parent / "other", "llama", num_hidden_layers=2)
        compare(tiny_bundle("llama"), open_checkpoint(other))


def test_pieces() -> None:
    assert pieces_of(10, 4) == [4, 4, 2]
    assert pieces_of(8, 4) == [4, 4]
    assert pieces_of(3, 4) == [3]
