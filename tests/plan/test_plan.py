"""Verdicts, limits and suggestions: each suggestion is tried."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgekit.device.profile import Software, device_names, device_profile
from edgekit.errors import DeviceError, ModelError
from edgekit.plan.estimate import Estimate, total
from edgekit.plan.facts import missing, notes, plan_facts
from edgekit.plan.limits import largest, largest_batch, largest_context
from edgekit.plan.model_sizes import ModelSizes
from edgekit.plan.options import PlanOptions, options_for
from edgekit.plan.plan import Plan, changed, make_plan
from edgekit.plan.suggestions import build_suggestions, run_suggestions
from edgekit.plan.verdict import DOES_NOT_FIT, FITS, TIGHT, verdict
from tests.plan.conftest import BOARD, CARD, OLD


def planned(sizes: ModelSizes, dtype: str = "fp16", context: int = 4096, device=BOARD, **options) -> Plan:  # type: ignore[no-untyped-def]
    return make_plan("model", sizes, device, PlanOptions(dtype, context, **options))


def test_verdicts() -> None:
    needed = Estimate(10, 8, 12, "")
    assert [verdict(needed, available) for available in (12, 11, 10, 9)] == [FITS, TIGHT, TIGHT, DOES_NOT_FIT]


def test_sums_add_bounds() -> None:
    assert total([Estimate(1, 0, 3, ""), Estimate.within(10, 0.1, 0.2, "")], "").facts() == {
        "value": 11,
        "low": 9,
        "high": 15,
        "basis": "",
    }
    assert Estimate(4, 2, 5, "").inverse().facts() == {"value": 0.25, "low": 0.2, "high": 0.5, "basis": ""}


def test_a_small_model_fits_a_board_and_a_large_one_does_not(smollm2: ModelSizes, llama_2_7b: ModelSizes) -> None:
    assert planned(smollm2).run_verdict == FITS
    large = planned(llama_2_7b)
    assert large.run_verdict == DOES_NOT_FIT
    # The weights alone, 13.5 GB, are more than 7 GB.
    assert large.memory.of("weights").value == pytest.approx(13.48e9, rel=1e-3)
    assert large.build_verdict == DOES_NOT_FIT


def test_suggestions_fit_when_they_are_tried(llama_2_7b: ModelSizes) -> None:
    plan = planned(llama_2_7b)
    found = run_suggestions(plan)
    assert any(entry.plan.options.dtype == "int4" for entry in found)
    for entry in found:
        options = entry.plan.options
        again = make_plan("model", llama_2_7b, entry.plan.machine.device, options)
        assert again.run_verdict in (FITS, TIGHT), entry.change
        assert again.memory.total.value <= again.memory.available
        if entry.command and "edgekit export" in entry.command:
            assert f"--dtype {options.dtype}" in entry.command
            assert f"--max-context {options.context}" in entry.command
    assert not any("streaming" in entry.change for entry in found), "GPU and CPU share the memory"


def test_no_suggestions_where_nothing_is_wrong(smollm2: ModelSizes) -> None:
    plan = planned(smollm2)
    assert run_suggestions(plan) == []
    assert build_suggestions(plan) == []


def test_a_card_can_stream_weights(llama_2_7b: ModelSizes) -> None:
    found = run_suggestions(planned(llama_2_7b, context=512, device=CARD))
    streaming = next(entry for entry in found if "streaming" in entry.change)
    assert streaming.plan.fits
    assert not streaming.speed_is_known
    resident = streaming.plan.options.resident_weight_bytes
    assert resident is not None
    assert not changed(streaming.plan, resident_weight_bytes=resident + 2_000_000).fits


def test_a_smaller_cache_is_suggested_where_the_cache_is_the_trouble(llama_2_7b: ModelSizes) -> None:
    roomy = replace(OLD, memory_bytes=20_000_000_000)
    plan = planned(llama_2_7b, dtype="fp16", context=4096, device=roomy)
    roomy = replace(OLD, memory_bytes=int(plan.memory.total.value) + 900_000_000)
    plan = planned(llama_2_7b, dtype="fp16", context=4096, device=roomy)
    assert plan.run_verdict == DOES_NOT_FIT
    found = [entry for entry in run_suggestions(plan) if entry.plan.options.attention == "tpa"]
    assert len(found) == 1
    assert found[0].command == "edgekit convert model -o SMALLER --attention tpa --cache-ratio 0.75"
    # In place, so once and not twice: 0.75 of 2.1 GB.
    assert found[0].plan.memory.of("cache").value == pytest.approx(0.75 * 4096 * 524_288)


def test_limits_are_the_last_that_fit(llama_2_7b: ModelSizes) -> None:
    roomy = replace(BOARD, memory_bytes=16_200_000_000)
    plan = planned(llama_2_7b, context=512, device=roomy)
    context, batch = largest_context(plan), largest_batch(plan)
    assert context is not None
    assert batch is not None
    assert changed(plan, context=context).fits
    assert not changed(plan, context=context + 1).fits
    assert changed(plan, batch=batch).fits
    assert not changed(plan, batch=batch + 1).fits
    assert largest_context(planned(llama_2_7b)) is None


def test_the_form_follows_the_newest_tensorrt(smollm2: ModelSizes, llama_2_7b: ModelSizes) -> None:
    assert [planned(smollm2, device=d).machine.form for d in (BOARD, CARD, OLD)] == ["tensorrt", "tensorrt", "jetpack6"]
    commands = [entry.command or "" for entry in run_suggestions(planned(llama_2_7b, device=OLD))]
    assert any("--form jetpack6" in line for line in commands)
    assert any("older than 10.15" in note for note in notes(planned(smollm2, device=OLD)))
    assert not any("10.15" in note for note in notes(planned(smollm2)))
    both = replace(BOARD, software=OLD.software + BOARD.software)
    assert any("With JetPack 6.2 it grows" in note for note in notes(planned(smollm2, device=both)))
    ancient = replace(OLD, software=(Software("JetPack 5.1", "11.4", "8.5"),))
    assert any("8.5" in note for note in notes(planned(smollm2, device=ancient)))


def test_bisection() -> None:
    assert largest(lambda n: n <= 77, 1, 1000) == 77
    assert largest(lambda n: True, 1, 1000) == 1000
    assert largest(lambda n: False, 1, 1000) is None


def test_types_the_device_or_edgekit_lacks(smollm2: ModelSizes) -> None:
    with pytest.raises(DeviceError) as caught:
        planned(smollm2, dtype="fp8")
    assert "fp32, fp16, int8, int4" in caught.value.rule
    assert "8.7" in caught.value.fact
    ada = replace(CARD, dtypes=(*CARD.dtypes, "fp8"))
    with pytest.raises(DeviceError, match="not yet by edgekit"):
        planned(smollm2, dtype="fp8", device=ada)


def test_unknown_power_mode(smollm2: ModelSizes) -> None:
    with pytest.raises(DeviceError) as caught:
        make_plan("model", smollm2, BOARD, PlanOptions("fp16", 64), "21w")
    assert "10W, 20W" in caught.value.rule
    assert "20W" in caught.value.next_step


def test_options_that_mean_nothing(smollm2: ModelSizes) -> None:
    with pytest.raises(ModelError, match="8,192"):
        options_for(smollm2, dtype="fp16", context=8193)
    with pytest.raises(DeviceError, match="max-input-len"):
        options_for(smollm2, dtype="fp16", context=64, max_input=65)
    with pytest.raises(DeviceError, match="cache-ratio"):
        options_for(smollm2, dtype="fp16", cache_ratio=0.5)
    with pytest.raises(DeviceError, match="cache-ratio"):
        options_for(smollm2, dtype="fp16", attention="tpa")


def test_conversion_is_refused_where_the_converter_refuses(smollm2: ModelSizes) -> None:
    windowed = replace(smollm2, caches=tuple(replace(c, window=64) for c in smollm2.caches))
    for sizes in (windowed, replace(smollm2, model_type="qwen3")):
        with pytest.raises(ModelError, match="can be converted"):
            planned(sizes, attention="tpa", cache_ratio=0.5)
    with pytest.raises(ModelError, match="ratio"):
        planned(smollm2, attention="tpa", cache_ratio=1.5)


def test_tokens_per_joule_are_those_of_the_limit(smollm2: ModelSizes) -> None:
    speed = planned(smollm2).speed
    assert speed.tokens_per_joule is not None
    assert speed.tokens_per_joule.value == pytest.approx(speed.tokens_per_s.value / 20)
    unlimited = replace(BOARD, power_modes=(replace(BOARD.power_modes[1], watts=None),))
    plan = planned(smollm2, device=unlimited)
    assert plan.speed.tokens_per_joule is None
    assert any("power limit" in line for line in missing(plan))


def test_what_the_profile_lacks_is_said(smollm2: ModelSizes) -> None:
    modes = (replace(BOARD.power_modes[1], gpu_clock_hz=None),)
    bare = replace(BOARD, gpu_clock_hz=None, peak_ops_per_s={}, power_modes=modes, memory_reserved_bytes=None)
    plan = planned(smollm2, device=bare)
    assert plan.speed.first_token_s is None
    assert plan.break_even.free_positions is None
    assert plan.memory.available == 8_000_000_000
    assert len(missing(plan)) == 3


def test_facts_are_json(llama_2_7b: ModelSizes) -> None:
    facts = json.loads(json.dumps(plan_facts(planned(llama_2_7b))))
    assert facts["verdict"] == {"run": "does not fit", "build": "does not fit", "fits": False}
    assert facts["memory"]["total"]["value"] == sum(item["value"] for item in facts["memory"]["items"].values())
    assert facts["speed"]["limit"] == "weight bandwidth"
    assert facts["suggestions"]


@pytest.mark.parametrize("name", ["l4", "a100-80gb", "dgx-spark"])
def test_versions_of_another_backend_do_not_count(smollm2: ModelSizes, name: str) -> None:
    """Their profiles end with TensorRT-RTX 1.7, which is no TensorRT older than 10.15."""
    device = device_profile(name)
    assert device.software[-1].backend == "tensorrt-rtx"
    plan = make_plan("model", smollm2, device, PlanOptions("fp16", 1024))
    newest = [each.tensorrt for each in device.software if each.backend == "tensorrt"][-1]
    assert plan.machine.caches_in_place == (tuple(map(int, newest.split(".")[:2])) >= (10, 15))
    assert not any("1.7" in note for note in notes(plan))


@pytest.mark.parametrize("name", device_names())
def test_every_device_can_be_planned_for(smollm2: ModelSizes, name: str) -> None:
    device = device_profile(name)
    plan = make_plan("model", smollm2, device, PlanOptions("fp16", 1024))
    assert plan.fits
    assert plan.speed.tokens_per_s.low < plan.speed.tokens_per_s.value < plan.speed.tokens_per_s.high
    assert plan.build.on_device == (device.backend == "tensorrt")
    # No faster than reading the weights once a token at the peak bandwidth.
    assert plan.speed.at_start.value < device.memory_bandwidth_bytes_per_s / (2 * 134_515_008)
