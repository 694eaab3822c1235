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


#: Cache tensors of each layer, where they are not keys and values.
CACHES = {
    "t6": [("key_a", "key_b", "value_a", "value_b")] * 3,
    "llama_tpa": [("key_b", "value_b"), ("key_b", "value_b"), ("key_latent", "value_b")],
}


@pytest.mark.parametrize("form", ["ort", "portable"])
@pytest.mark.parametrize("name", CONFIGS)
def test_float32(name: str, form: str, tiny_bundle: Bundles, tiny_checkpoint: Checkpoints) -> None:
    report = compare(tiny_bundle(name, form), tiny_checkpoint(name))
    assert report.failure is None
    assert (report.activations, report.reference, report.weights) == ("float32", "original", ())
    assert report.model.greedy_prefixes == (TOKENS, TOKENS)
    assert report.model.kl_max < 1e-8
    expected = {mode: expected_stages(name, form, mode) for mode in ("prefill", "chunked", "decode", "runtime")}
    assert {mode: [s.name for s in report.stages if s.mode == mode] for mode in expected} == expected


def expected_stages(name: str, form: str, mode: str) -> list[str]:
    """What is compared, in the order in which data flows."""
    caches = CACHES.get(name, [("key", "value")] * CONFIGS[name].get("num_hidden_layers", 3))
    if (name, form) == ("llama_tpa", "ort"):
        caches = [("key", "value"), *caches[1:]]  # its first layer became grouped-query attention
    stages = []
    for layer, suffixes in enumerate(caches):
        stages += [f"hidden.{layer}", *(f"cache.{layer}.{suffix}" for suffix in suffixes)]
    stages = [*stages, f"hidden.{len(caches)}", "logits"]
    return [stage for stage in stages if mode != "runtime" or not stage.startswith("hidden")]


@pytest.mark.parametrize("form", ["ort", "portable"])
def test_factors_quantised_together(form: str, tiny_bundle: Bundles, tiny_checkpoint: Checkpoints) -> None:
    """With activations in float32, what the codes of packed factor projections stand for gives the graph's results."""
    report = compare(tiny_bundle("t6", form, "int8"), tiny_checkpoint("t6"))
    factors = {f"{part}_proj.weight" for part in ("q_a", "q_b", "k_a", "k_b", "v_a", "v_b")}
    assert factors <= {check.name.rpartition("self_attn.")[2] for check in report.weights}
    assert [check for check in report.weights if check.objection] == []
    assert [stage for stage in report.stages if stage.mode != "runtime" and stage.objection] == []


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
