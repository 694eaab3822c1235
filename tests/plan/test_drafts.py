"""What drafting wins, by hand: chances into tokens, bytes into time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import Bundle, read_bundle, write_sidecar
from edgekit.errors import DeviceError
from edgekit.plan import bench_acceptance, step_cost
from edgekit.plan.break_even import USUAL_ACCEPTANCE
from edgekit.plan.drafts import BENCHED, DRAFT_LAYERS, TRAINED, Drafts, drafts_for, forecast
from edgekit.plan.facts import notes, plan_facts
from edgekit.plan.machine import machine
from edgekit.plan.model_sizes import ModelSizes
from edgekit.plan.of_bundle import asked_options
from edgekit.plan.options import options_for
from edgekit.plan.plan import make_plan
from edgekit.plan.step_cost import StepCost
from edgekit.runtime.drafting.open import HEADS
from tests.chat.tiny_bundle import write_tiny_bundle
from tests.plan.conftest import BOARD


@pytest.fixture
def with_heads(tmp_path: Path) -> Bundle:
    """Its manifest says that it has draft heads; a file of it stands for their graph."""
    path = write_tiny_bundle(tmp_path / "bundle")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["draft"] = {
        "file": "chat_template.jinja", "data": ["tokenizer.json"], "vocabulary": "tokenizer_config.json",
        "vocabulary_size": 9, "tokens": 3, "rank": 2, "components": 2, "feature_layers": [1],
        "features": manifest["model"]["hidden_size"], "acceptance": {"greedy": [0.7, 0.6, 0.5], "sampled": [0.5] * 3},
    }  # fmt: skip
    (path / "manifest.json").write_text(json.dumps(manifest))
    return read_bundle(path)


def size(bundle: Bundle, *names: str) -> int:
    return sum((bundle.path / name).stat().st_size for name in names)


def test_a_step_reads_weights_and_draft_graph_once(llama_2_7b: ModelSizes) -> None:
    cost = StepCost(llama_2_7b, machine(BOARD), "fp16", in_place=True)
    graph = 400_000_000
    found = forecast(cost, Drafts((0.8, 0.8), graph, "as given"), 100)
    plain = cost.step(100).seconds
    drafting = graph / (step_cost.BANDWIDTH_SHARE * 100e9) + DRAFT_LAYERS * step_cost.CYCLES_PER_LAYER / 1e9
    verifying = cost.step(100, positions=3).seconds
    assert found.draft_cost == pytest.approx(drafting / plain)
    assert found.verify_cost == pytest.approx(verifying / plain)
    assert found.tokens_per_step == pytest.approx(1 + 0.8 + 0.64)
    assert found.speed_up == pytest.approx(2.44 * plain / (verifying + drafting))
    assert found.best == 2
    assert found.tokens_per_s.value == pytest.approx(2.44 / (verifying + drafting))
    assert found.tokens_per_s.low < found.tokens_per_s.value < found.tokens_per_s.high
    # From that chance on, and not below, the block gives more than it costs.
    assert found.needed_acceptance is not None
    p = found.needed_acceptance
    assert 1 + p + p * p == pytest.approx(found.verify_cost + found.draft_cost)


def test_each_block_is_costed_once(llama_2_7b: ModelSizes, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    step = StepCost.step

    def noted(self: StepCost, context: int, batch: int = 1, positions: int = 1, logits: int | None = None) -> Any:
        asked.append(positions)
        return step(self, context, batch, positions, logits)

    monkeypatch.setattr(StepCost, "step", noted)
    forecast(StepCost(llama_2_7b, machine(BOARD), "fp16", in_place=True), Drafts((0.8,) * 3, 400_000_000, ""), 100)
    assert asked == [1, 2, 3, 4]


def test_where_drafting_loses_plain_decoding_is_best(llama_2_7b: ModelSizes) -> None:
    cost = StepCost(llama_2_7b, machine(BOARD), "fp16", in_place=True)
    found = forecast(cost, Drafts((0.1,) * 4, 3_000_000_000, "as given"), 100)
    assert found.speed_up < 1
    assert (found.best, found.best_speed_up) == (0, 1.0)
    assert found.tokens_per_s.value == pytest.approx(1 / cost.step(100).seconds)
    # Reading a draft graph seven times as large as the model.
    assert forecast(cost, Drafts((1.0, 1.0), 95_000_000_000, "as given"), 100).needed_acceptance is None


def test_a_shorter_draft_may_be_best(llama_2_7b: ModelSizes) -> None:
    slow = machine(replace(BOARD, peak_ops_per_s={"fp16": 0.3e12}))
    found = forecast(StepCost(llama_2_7b, slow, "fp16", in_place=True), Drafts((0.9, 0.1, 0.1, 0.1), None, ""), 16)
    assert 0 < found.best < 4
    assert found.best_speed_up > found.speed_up


def test_what_is_asked_for() -> None:
    assert drafts_for("smollm2-135m", None, None) is None
    found = drafts_for("smollm2-135m", 3, 0.5)
    assert found == Drafts((0.5, 0.5, 0.5), None, "as given")
    assert drafts_for("smollm2-135m", None, 0.5) == Drafts((0.5,) * 4, None, "as given")
    usual = drafts_for("smollm2-135m", 2, None)
    assert usual is not None
    assert usual.chances == (USUAL_ACCEPTANCE,) * 2


def test_what_a_bundle_holds(with_heads: Bundle) -> None:
    read = size(with_heads, "chat_template.jinja", "tokenizer.json")
    found = drafts_for(str(with_heads.path), None, None)
    assert found == Drafts((0.7, 0.6, 0.5), read, TRAINED)
    assert drafts_for(str(with_heads.path), 2, None) == Drafts((0.7, 0.6), read, found.basis)
    assert drafts_for(str(with_heads.path), 2, 0.9) == Drafts((0.9, 0.9), read, "as given")
    with pytest.raises(DeviceError) as caught:
        drafts_for(str(with_heads.path), 4, None)
    assert "proposes 3" in caught.value.fact


def test_a_bundle_without_heads_says_nothing(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "bundle")
    assert drafts_for(str(path), None, None) is None
    assert drafts_for(str(path), 2, 0.5) == Drafts((0.5, 0.5), None, "as given")


def plan(sizes: ModelSizes, drafts: Drafts | None) -> Any:
    return make_plan("model", sizes, BOARD, options_for(sizes, dtype="fp16", context=1024, drafts=drafts))


def test_a_plan_with_drafts(smollm2: ModelSizes) -> None:
    plain, drafted = plan(smollm2, None), plan(smollm2, Drafts((0.7,) * 4, 20_000_000, "as given"))
    assert plain.drafting is None
    assert drafted.speed == plain.speed, "a plain step reads no heads"
    weights = [next(item for item in each.memory.items if item.name == "weights") for each in (plain, drafted)]
    assert weights[1].bytes.value - weights[0].bytes.value == 20_000_000
    # Built as one more layer, with so many more bytes of weights (the fit of docs/planning.md).
    assert drafted.build.memory.value - plain.build.memory.value == pytest.approx(15e6 + 3.1 * 20e6)
    facts = plan_facts(drafted)
    assert facts["drafting"]["proposed"] == 4
    assert facts["drafting"]["tokens_per_s"]["value"] > facts["speed"]["tokens_per_s"]["value"]
    assert plan_facts(plain)["drafting"] is None
    assert any("upper bound" in note for note in notes(drafted))
    assert not any("upper bound" in note for note in notes(plain))


def test_drafting_is_told_for_one_sequence(smollm2: ModelSizes) -> None:
    with pytest.raises(DeviceError) as caught:
        options_for(smollm2, dtype="fp16", batch=2, drafts=Drafts((0.5,), None, ""))
    assert "--batch is 2" in caught.value.fact


def test_a_bundle_with_heads_can_be_planned_for_several_sequences(with_heads: Bundle, smollm2: ModelSizes) -> None:
    options = asked_options(str(with_heads.path), smollm2, None, None, dtype="fp16", batch=2)
    assert options.drafts is None
    assert options.compression.draft_head_bytes == size(with_heads, "chat_template.jinja", "tokenizer.json")
    for tokens, acceptance in ((2, None), (None, 0.5)):
        with pytest.raises(DeviceError, match="for one sequence"):
            asked_options(str(with_heads.path), smollm2, tokens, acceptance, dtype="fp16", batch=2)
    one = asked_options(str(with_heads.path), smollm2, None, None, dtype="fp16")
    assert one.drafts == drafts_for(str(with_heads.path), None, None)


def benched(*groups: tuple[int, list[float | None]], source: str = HEADS) -> dict[str, Any]:
    """A measurement: for each group tokens drafted and acceptance by position."""
    return {
        "draft": {
            "groups": [
                {"draft": {"sources": {source: {"drafted": drafted, "acceptance_by_position": chances}}}}
                for drafted, chances in groups
            ]
        }
    }


def test_what_conversations_showed_is_planned_with_where_it_is_less(with_heads: Bundle) -> None:
    write_sidecar(with_heads, "bench", benched((300, [0.5, 0.9, None]), (100, [0.3, 0.5, None])))
    found = drafts_for(str(with_heads.path), None, None)
    assert found is not None
    # 0.75 of 0.5 and 0.25 of 0.3; the second is better than in training, and of the third nothing is known.
    assert found.chances == pytest.approx((0.45, 0.6, 0.5))
    assert found.basis == BENCHED
    assert drafts_for(str(with_heads.path), None, 0.9) == Drafts((0.9,) * 3, found.graph_bytes, "as given")


@pytest.mark.parametrize(
    "document",
    [
        {"draft": None},
        {},
        {"draft": {"groups": 3}},
        {"draft": {"groups": [{}]}},
        benched((9, [0.1] * 3), source="ngram"),
    ],
)
def test_measurements_that_say_nothing_of_heads_change_nothing(with_heads: Bundle, document: dict[str, Any]) -> None:
    write_sidecar(with_heads, "bench", document)
    found = drafts_for(str(with_heads.path), None, None)
    assert found is not None
    assert (found.chances, found.basis) == ((0.7, 0.6, 0.5), TRAINED)


def test_a_measurement_of_another_export_is_not_this_ones(with_heads: Bundle) -> None:
    write_sidecar(with_heads, "bench", benched((300, [0.1, 0.1, 0.1])))
    manifest = json.loads((with_heads.path / "manifest.json").read_text())
    manifest["draft"]["acceptance"]["sampled"] = [0.4] * 3
    (with_heads.path / "manifest.json").write_text(json.dumps(manifest))
    found = drafts_for(str(with_heads.path), None, None)
    assert found is not None
    assert found.basis == TRAINED


def test_heads_are_called_as_measurements_call_them() -> None:
    assert bench_acceptance.HEADS == HEADS


def test_the_plan_tells_what_the_chances_were_measured_on(with_heads: Bundle, llama_2_7b: ModelSizes) -> None:
    options = asked_options(str(with_heads.path), llama_2_7b, None, None, dtype="fp16")
    told = " ".join(notes(make_plan("m", llama_2_7b, BOARD, options)))
    assert "less often in conversations" in told
    write_sidecar(with_heads, "bench", benched((300, [0.5, 0.5, 0.5])))
    options = asked_options(str(with_heads.path), llama_2_7b, None, None, dtype="fp16")
    assert "less often in conversations" not in " ".join(notes(make_plan("m", llama_2_7b, BOARD, options)))


def test_a_bundles_own_weights_are_planned(tmp_path: Path, llama_2_7b: ModelSizes) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    own, form = manifest["dtype"], manifest["form"]
    found = asked_options(str(bundle), llama_2_7b, None, None)
    assert found.dtype == own
    assert f"planned as {own}, as the bundle's are" in found.assumed[0]
    assert form in found.assumed[1]
    other = asked_options(str(bundle), llama_2_7b, None, None, dtype="int8")
    assert (other.dtype, other.assumed[0]) == ("int8", f"Weights are planned as int8; the bundle's own are {own}.")
    manifest |= {"dtype": "int4", "form": "tensorrt", "quantization": {"units_at_8_bits": ["lm_head"]}}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    found = asked_options(str(bundle), llama_2_7b, None, None)
    assert (found.dtype, found.compression.share_at_8_bits, len(found.assumed)) == ("int4", 0.0, 1)
    manifest["quantization"] = {"units_at_8_bits": ["lm_head", "model.layers.0.mlp.down_proj"]}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert asked_options(str(bundle), llama_2_7b, None, None).compression.share_at_8_bits is None


def test_without_a_bundle_the_default_is_told(llama_2_7b: ModelSizes) -> None:
    found = asked_options("model", llama_2_7b, None, None)
    assert (found.dtype, len(found.assumed)) == ("fp16", 1)
    assert asked_options("model", llama_2_7b, None, None, dtype="fp16").assumed == ()
