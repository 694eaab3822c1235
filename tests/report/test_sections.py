"""Each part of a report: its numbers are the measurement's, and what is missing, stale or failed says so."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

import edgekit.report.sections
from edgekit.bundle import Bundle, write_sidecar
from edgekit.errors import BundleError
from edgekit.report.collect import document_of, page_of, section_makers
from edgekit.report.kit_result import read_kit_result
from edgekit.report.sections import drafting
from edgekit.report.source import Source
from edgekit.report.svg import Lines
from tests.report import documents
from tests.report.documents import ENGINE, with_manifest
from tests.report.reading import facts, report, section, table, text, tiles


def test_every_file_is_a_section_in_the_order_of_the_page(measured: Bundle) -> None:
    folder = Path(edgekit.report.sections.__file__).parent
    assert set(section_makers()) == {path.stem for path in folder.glob("[!_]*.py")}
    root = report(measured)
    shown = [element.get("id") for element in root.iter("section")]
    assert shown == ["parity", "perplexity", "size", "speed", "plan", "cache", "operators", "provenance"]
    (nav,) = root.iter("nav")
    assert [link.get("href") for link in nav.iter("a")] == [f"#{name}" for name in shown]


def test_the_figures_at_the_top(measured: Bundle) -> None:
    found = tiles(report(measured))
    assert found["Parity"] == "passed24 stages, 1,234 positions"
    assert found["Perplexity"] == "17.65+1.92 ± 0.22 % beside the reference"
    assert found["First token"].startswith("1.37 s")
    steps = [0.0211 + 0.0223 + 0.0237, 0.0219 + 0.0247 + 0.0291]
    assert found["Decode"].startswith(f"{statistics.median(3 / s for s in steps):.1f} tokens/s")
    assert found["Size"].startswith(f"{sum(entry.bytes for entry in measured.manifest.files) / 1000:.0f} kB")


def test_parity_shows_each_stage_at_its_worst(measured: Bundle) -> None:
    part = section(report(measured), "parity")
    assert "Every stage is within the tolerance" in text(part)
    rows = table(part, "Each way to run the graph, at its worst")
    assert list(rows) == ["prefill", "chunked", "decode"]
    cosines = [f"{1 - error / 10:.7f}" for error in (2 * 3 * 1.7e-7, 2 * 3 * 3.1e-7, 3 * 4.3e-7)]
    assert rows["decode"] == [*cosines, "3.87e−6", "1.29e−6", "ok"]
    layers = table(part, "Every layer")
    assert list(layers) == ["embedding", "0", "1"]
    # Of layer 1 the hidden state is what comes out of it: hidden.2, at its worst in the third mode.
    assert layers["1"][1] == "1.02e−6"
    assert layers["1"][4] == "1.38e−6"
    assert layers["1"][7] == "1.86e−6"
    choices = table(part, "Over 1,234 positions")
    assert choices["mean KL divergence"] == ["0.00457 nats", "at most 0.03 nats"]
    assert choices["same most likely token"] == ["97.65 %", "at least 90 %"]
    assert choices["greedy tokens in common"][0] == "64, 7, 31"
    assert "tolerance 0.0001" in text(part)


def test_failed_parity_is_red_and_names_the_stage(bare: Bundle) -> None:
    stages = [*documents.parity()["stages"], documents.stage("runtime", "logits", 0.5, passed=False)]
    write_sidecar(bare, "parity", documents.parity(passed=False, failure="runtime, logits: 0.5", stages=stages))
    root = report(bare)
    part = section(root, "parity")
    assert part.get("class") == "failed"
    assert "Failed: runtime, logits: 0.5" in text(part)
    assert table(part, "Each way to run the graph, at its worst")["runtime"][-1] == "FAILEDlogits"
    assert tiles(root)["Parity"].startswith("failed")


def test_what_is_not_finite_is_said_and_not_drawn(bare: Bundle) -> None:
    document = documents.parity(passed=False, failure="prefill, hidden.1")
    for stage in document["stages"]:
        if stage["name"] == "hidden.1":
            stage.update(cosine=None, max_abs_error=None, relative_error=None, passed=False)
    write_sidecar(bare, "parity", document)
    layers = table(section(report(bare), "parity"), "Every layer")
    assert layers["0"][0] == "not finite"
    assert not re.search(r"\bnan\b", text(report(bare)).lower())


def test_perplexity_with_its_comparison(measured: Bundle) -> None:
    part = section(report(measured), "perplexity")
    found = facts(part)
    assert found["perplexity"] == "17.65 ± 0.432"
    assert found["bits per byte"] == "0.98765"
    assert found["nats per token"] == f"{6700.5 / 2334:.5f}"
    assert found["windows"] == "5 of 512 tokens, stride 512"
    assert "tiny, PyTorch float32" in text(part)
    assert "+1.92 ± 0.22 %" in text(part)
    numbers = table(part, "Numbers: Perplexity")
    assert numbers["this bundle"] == ["17.65", "17.22 to 18.09"]


def test_perplexity_alone(bare: Bundle) -> None:
    write_sidecar(bare, "eval", documents.perplexity(reference=None, standard_error=None))
    part = section(report(bare), "perplexity")
    assert "nothing to compare it with" in text(part)
    assert facts(part)["perplexity"] == "17.65"


def test_speed_shows_every_sample(measured: Bundle) -> None:
    part = section(report(measured), "speed")
    dots = [element for element in part.iter("circle") if "sample" in element.get("class", "")]
    assert len(dots) == 2 * (6 + 2 + 2)  # decode steps, prompts, loads; once for each width
    rows = table(part, "Of 2 repetitions")
    assert rows["prompt of 512: first token"] == ["1.37 s", "1.37 s", "69.3 ms", "1.32 s", "2"]
    assert rows["load, warm"][0] == "384 ms"
    assert "load, cold" not in rows
    found = facts(part)
    assert found["peak memory"].startswith("402 MB, 289 MB once loaded")
    assert found["memory bandwidth"].startswith("40.7 GB/s")
    assert found["machine"] == "Example CPU, 2 threads, Linux-6"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", found["measured"])


def test_a_benchmark_without_steps_shows_repetitions(bare: Bundle) -> None:
    document = documents.bench()
    del document["decodes"][0]["steps_s"]
    write_sidecar(bare, "bench", document)
    part = section(report(bare), "speed")
    assert "the mean step of a repetition" in text(part)


@pytest.mark.parametrize(("share", "warned"), [(0.05, False), (0.3, True)])
def test_a_busy_machine_is_told(share: float, warned: bool, bare: Bundle) -> None:
    write_sidecar(bare, "bench", documents.bench(others_cpu_share=documents.samples([share, share])))
    root = report(bare)
    assert ("Other processes took 30 %" in text(section(root, "speed"))) is warned
    assert tiles(root)["Decode"].endswith("; the machine was busy") is warned


def test_drafting_shows_speed_acceptance_and_break_even(bare: Bundle) -> None:
    write_sidecar(bare, "bench", documents.bench(draft=documents.drafted()))
    root = report(bare)
    part = section(root, "drafting")
    rows = table(part, "Medians over answers; of the speed-up the quartiles")
    assert rows["chat"] == ["3", "42.0 tokens/s", "61.5 tokens/s", "1.47 ×1.39 to 1.58", "2.14"]
    assert rows["riddles"][3] == "0.990 ×0.990 to 0.990"
    assert "1 answer differs from plain decoding's" in text(part)
    assert "riddles: drafting was off at the end: it promises 0.83 times the speed." in text(part)
    accepted = table(part, "Tokens drafted and accepted; by position, of those whose predecessors were accepted")
    assert accepted["chat, cp"] == ["100", "67", "80 %", "68 %"]
    assert accepted["chat, ngram"] == ["10", "9", "100 %", "80 %"]
    # 1 + 0.8 + 0.8 · 0.675 of heads, 1 + 1 + 0.8 of copies, beside what 3 positions cost.
    numbers = table(part, "Numbers: Break-even of drafting")
    assert numbers["1"] == ["1", "1", "1"]
    assert numbers["3"] == ["1.21", "2.34", "2.80"]
    # The median of 0.99, 1.31, 1.47 and 1.69.
    assert tiles(root)["Drafting"] == "1.39 ×plain decoding's speed, median of 4 answers (chat, riddles)"


def test_quartiles_are_those_of_the_samples(bare: Bundle) -> None:
    document = documents.drafted()
    for group in document["groups"]:
        group["speed_up"]["quartiles"] = [9.0]
    document["blocks"][1]["step_s"] = documents.samples([0.010, 0.014, 0.018])
    write_sidecar(bare, "bench", documents.bench(draft=document))
    rows = table(section(report(bare), "drafting"), "Medians over answers; of the speed-up the quartiles")
    assert rows["chat"][3] == "1.47 ×1.39 to 1.58"
    plot = drafting._break_even(document).plot
    assert isinstance(plot, Lines)
    cost = plot.series[0].points[1]
    assert (cost.low, cost.high) == (pytest.approx(1.2), pytest.approx(1.6))


def test_drafting_that_was_not_measured(bare: Bundle, measured: Bundle) -> None:
    shown = [element.get("id") for element in report(measured).iter("section")]
    assert "drafting" not in shown, "a bundle without heads need not draft"
    entry = {
        "file": "model.onnx", "data": [], "vocabulary": "tokenizer.json", "vocabulary_size": 9, "tokens": 2, "rank": 2,
        "components": 2, "feature_layers": [1], "features": measured.manifest.model.hidden_size, "acceptance": None,
    }  # fmt: skip
    part = section(report(with_manifest(measured, draft=entry)), "drafting")
    assert part.get("class") == "missing"
    assert "edgekit bench" in text(part)
    assert "--draft auto" in text(part)


def test_drafting_of_another_state_is_stale(bare: Bundle) -> None:
    write_sidecar(bare, "bench", documents.bench(draft=documents.drafted()))
    root = report(with_manifest(bare, edgekit="0.0.1"))
    assert "This is stale" in text(section(root, "drafting"))
    assert "Drafting" not in tiles(root)


@pytest.mark.parametrize("field", ["groups", "blocks", "answer_tokens"])
def test_drafting_that_lacks_a_field_is_refused(bare: Bundle, field: str) -> None:
    draft = documents.drafted()
    del draft[field]
    write_sidecar(bare, "bench", documents.bench(draft=draft))
    with pytest.raises(BundleError, match=f"draft.{field}"):
        report(bare)


def test_speed_of_answers_that_were_not_proven(bare: Bundle) -> None:
    write_sidecar(bare, "bench", documents.bench(parity=None))
    assert "answers were not proven" in text(section(report(bare), "speed"))


def test_the_bound_beside_the_measurement(measured: Bundle) -> None:
    rows = table(section(report(measured), "plan"), "The bound of decoding")
    assert rows == {"128": ["165 MB", "4.07 ms", "23.8 ms", "17.4 %"]}


def test_without_a_bandwidth_there_is_no_bound(bare: Bundle) -> None:
    document = documents.bench()
    document["decodes"][0]["roofline"] = None
    write_sidecar(bare, "bench", document)
    assert "could not be measured" in text(section(report(bare), "plan"))


def test_the_cache_beside_others(bare: Bundle) -> None:
    cache = {**bare.manifest.raw["cache"], "bytes_per_token": 3000, "bytes_per_token_of": {"MHA": 12_000, "MQA": 1500}}
    part = section(report(with_manifest(bare, cache=cache)), "cache")
    assert facts(part)["bytes per token"] == "3,000"
    assert "0.250 of MHA, 2.00 of MQA" in text(part)
    limit = bare.manifest.cache.capacity_limit
    last = list(table(part, "Numbers: Memory of the cache for one sequence").values())[-1]
    assert last[0].split()[0] == f"{3000 * limit / 1e6:.2f}"


def test_custom_operators_with_the_forms_they_have(bare: Bundle) -> None:
    uses = [{"name": "TPAAttention", "version": 1, "nodes": 5}, {"name": "Unheard", "version": 2, "nodes": 1}]
    part = section(report(with_manifest(bare, operators=uses)), "operators")
    rows = table(part, "Custom operators, and the forms in which each can run")
    assert rows["TPAAttention"] == ["1", "5", "available", "in the graph", "available", "available"]
    assert rows["Unheard"] == ["2", "1", "none", "in the graph", "none", "none"]


def test_provenance_has_hashes_rules_and_versions(bare: Bundle) -> None:
    fields = {
        "provenance": {
            "checkpoint": {
                "path": "tiny.gguf",
                "location": "/models/tiny.gguf",
                "format": "gguf",
                "files": [{"name": "tiny.gguf", "bytes": 98_362_432, "sha256": "b1" * 32}],
            }
        },
        "versions": {"torch": "9.8.7"},
        "rules": {
            "fuse_gqa": {"fired": 30, "refused": []},
            "fold": {"fired": 2, "refused": [{"node": "n7", "reason": "it has another reader"}]},
            "idle_rule": {"fired": 0, "refused": []},
        },
        "quantization": {"bits": 8, "weight_bytes": 155_492_352, "origin": {"rounded": 210}},
        "recipe": {"file": "tiny.cpu.toml"},
    }
    bundle = with_manifest(bare, **fields)
    root = report(bundle)
    part = section(root, "provenance")
    found = facts(part)
    assert found["SHA-256 of tiny.gguf"] == "b1" * 32 + "98,362,432 bytes"
    assert "torch 9.8.7" in found["written by"]
    assert found["recipe"] == "tiny.cpu.toml"
    assert found["manifest"].startswith(bundle.manifest_sha256)
    assert found["quantisation weight bytes"] == "155,492,352 (155 MB)"
    rules = table(part, "Rewrite rules; nothing to do for idle_rule")
    assert rules == {"fuse_gqa": ["30", "0", ""], "fold": ["2", "1", "n7: it has another reader"]}
    hashes = table(part, f"SHA-256 of {len(bundle.manifest.files)} files")
    assert {name: row[1] for name, row in hashes.items()} == {e.name: e.sha256 for e in bundle.manifest.files}
    assert "checkpoint 98.4 MB" in tiles(root)["Size"]


def test_engines_with_what_they_take(bare: Bundle) -> None:
    assert "engines" not in {part.get("id") for part in report(bare).iter("section")}
    part = section(report(with_manifest(bare, engines=[ENGINE])), "engines")
    purpose = table(part, "What each is for")["sm89-fp16fp16"]
    assert purpose == [
        "tensorrt-rtx 1.7.1.116weight_streaming",
        "SM 89for rtx-4090",
        "1 sequence, 1,024 new tokens at once, 4,096 in all",
    ]
    costs = table(part, "What each takes")["sm89-fp16"]
    assert costs == ["271 MB", "not told", "12.3 MB", "61.5 s", "1.23 GB"]
    assert table(part, "Plugins that they call")["sm89-fp16: TPAAttention"] == ["1", "5", "tokenizer.json" + "d" * 64]


def test_what_is_missing_comes_with_its_command(bare: Bundle) -> None:
    root = report(bare)
    for name, verb in (("parity", "parity"), ("perplexity", "eval"), ("speed", "bench"), ("plan", "bench")):
        part = section(root, name)
        assert part.get("class") == "missing"
        (command,) = (text(element) for element in part.iter("pre"))
        assert command.startswith(f"edgekit {verb} {bare.path}")
    found = tiles(root)
    assert {found[name].split("edgekit")[0] for name in ("Parity", "Perplexity", "Decode")} == {"not measured"}
    assert not list(section(root, "speed").iter("svg"))


def test_what_was_measured_with_another_state_is_marked_stale(measured: Bundle) -> None:
    before = measured.manifest_sha256
    root = report(with_manifest(measured, edgekit="0.2.0"))
    for name, verb in (("parity", "parity"), ("perplexity", "eval"), ("speed", "bench"), ("plan", "bench")):
        part = section(root, name)
        assert part.get("class") == "stale"
        assert f"manifest {before[:12]}" in text(part)
        assert any(text(element).startswith(f"edgekit {verb} ") for element in part.iter("pre"))
    for name in ("Parity", "Perplexity", "Decode", "First token"):
        assert tiles(root)[name].startswith("stale")
    assert "passed" not in tiles(root)["Parity"].split("with")[0].split("stale")[0]
    assert section(root, "size").get("class") == "ok"


@pytest.mark.parametrize(
    ("name", "document", "field"),
    [
        ("parity", {"passed": True}, "failure must be there"),
        ("parity", documents.parity(stages=[{}]), r"stages\[0\]\.mode must be there"),
        ("eval", documents.perplexity(perplexity="low"), "perplexity must be a finite number"),
        ("bench", documents.bench(decodes=[1]), r"decodes\[0\] must be an object"),
        ("bench", documents.bench(prompts=None), "prompts must be a list"),
    ],
)
def test_a_measurement_that_lacks_something_is_refused(
    name: str, document: dict[str, Any], field: str, bare: Bundle
) -> None:
    write_sidecar(bare, name, document)
    with pytest.raises(BundleError, match=field) as caught:
        report(bare)
    assert f"{name}.json" in caught.value.rule
    assert caught.value.next_step == f"measure again: edgekit {name} {bare.path}"


def test_a_number_that_is_none_is_refused(bare: Bundle) -> None:
    write_sidecar(bare, "eval", documents.perplexity())
    file = bare.path / "eval.json"
    file.write_text(file.read_text().replace("17.654", "NaN"))
    with pytest.raises(BundleError, match="perplexity must be a finite number"):
        report(bare)


def test_results_of_a_device(bare: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(documents.kit_result()))
    root = report(bare, read_kit_result(file))
    part = section(root, "kits")
    assert tiles(root)["jetson-orin-nano-8gb"] == "passedon the device: machine, build, parity, benchmark"
    found = facts(part)
    assert found["machine: tensorrt"] == "10.3"
    assert found["telemetry: mean power w"] == "11.9"
    assert found["build: build seconds"] == "61.5 s"
    assert found["build: engine bytes"] == "271 MB"
    assert found["same most likely token"] == "98.77 %"
    assert found["greedy tokens in common"] == "20 of 20, 17 of 20"
    assert table(part, "Each way to run the engine, at its worst")["decode"] == ["0.9999900", "0.0123", "0.00456"]
    row = documents.bench()["decodes"][0]["tokens_per_s"]["median"]
    decode = table(part, "Of 2 repetitions")["decode, 128 in the cache: rate"][0]
    assert decode == f"{row:.1f} tokens/s"
    # The bundle's own speed was not measured, and a device's is not taken for it.
    assert section(root, "speed").get("class") == "missing"
    assert "another bundle" not in text(part)


def test_power_and_tokens_per_joule(bare: Bundle) -> None:
    told = {"missing": "", "source": "a meter", "mean_power_w": 11.94, "peak_power_w": 14.2}
    told |= {"peak_temperature_c": 55.4, "mean_gpu_clock_hz": 1.02e9}
    document = documents.bench(telemetry=told)
    document["decodes"][0]["tokens_per_joule"] = 3.14159
    document["prompts"][0]["tokens_per_joule"] = None
    write_sidecar(bare, "bench", document)
    found = facts(section(report(bare), "speed"))
    assert found["power"] == "11.9 W on average, 14.2 W at mosta meter"
    assert found["energy: decode, 128 in the cache"] == "3.14 tokens/J"
    assert "energy: prompt of 512" not in found
    assert found["temperature of the GPU"] == "55.4 °C at most"
    assert found["clock of the GPU"] == "1,020 MHz on average"
    write_sidecar(bare, "bench", documents.bench(telemetry={**told, "missing": "no meter", "mean_power_w": None}))
    assert facts(section(report(bare), "speed"))["power"] == "not measuredno meter"
    write_sidecar(bare, "bench", documents.bench())
    assert "power" not in facts(section(report(bare), "speed")), "a result that never asked"


def test_the_plan_that_a_kit_carried(bare: Bundle, tmp_path: Path) -> None:
    def estimate(value: float) -> dict[str, Any]:
        return {"value": value, "low": value / 2, "high": value * 2, "basis": "b"}

    plan = {
        "verdict": {"run": "tight", "build": "does not fit", "fits": True},
        "memory": {"total": estimate(2e9), "available": 3_000_000_000},
        "build": {"memory": estimate(4e9)},
        "speed": {"tokens_per_s": estimate(50.0), "limit": "memory bandwidth"},
    }
    result = documents.kit_result()
    file = tmp_path / "result.json"
    for found, words in ((plan, "tight in 3.00 GB"), (None, ""), ({"verdict": 3}, "")):
        result["kit"]["plan"] = found
        file.write_text(json.dumps(result))
        part = section(report(bare, read_kit_result(file)), "kits")
        shown = facts(part)
        if words:
            assert shown["plan: running"] == words
            assert shown["plan: memory to run"] == "2.00 GB (1.00 GB to 4.00 GB)"
            assert shown["plan: building there"] == "does not fit"
            assert shown["plan: decoding, cache full"].endswith("limited by memory bandwidth")
        else:
            assert "plan: running" not in shown
    assert "{'verdict': 3}" in text(part), "what is not known is shown as it is"
    result["kit"]["plan"] = None
    file.write_text(json.dumps(result))
    assert "The kit carries no plan." in text(section(report(bare, read_kit_result(file)), "kits"))


def test_a_run_on_a_device_that_did_not_get_far_or_failed(bare: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(documents.kit_result(parity=None, benchmark=None)))
    root = report(bare, read_kit_result(file))
    assert "has no parity: it did not get so far" in text(section(root, "kits"))
    assert tiles(root)["jetson-orin-nano-8gb"].startswith("not proven")
    failure = {"stage": "machine", "kind": "BuildError", "rule": "a rule", "fact": "no GPU", "next_step": "find one"}
    stopped = documents.kit_result(machine=None, build=None, parity=None, benchmark=None, failure=failure)
    file.write_text(json.dumps(stopped))
    root = report(bare, read_kit_result(file))
    assert "It ended at machine: a rule. no GPU. find one." in text(section(root, "kits"))
    assert section(root, "kits").get("class") == "failed"
    failed = documents.kit_result()
    failed["parity"] |= {"passed": False, "failure": "decode: cosine 0.9"}
    failed["kit"] |= {"dtype": "int4"}
    file.write_text(json.dumps(failed))
    root = report(bare, read_kit_result(file))
    assert section(root, "kits").get("class") == "failed"
    assert "Failed: decode: cosine 0.9" in text(section(root, "kits"))
    assert "another bundle: its dtype is int4, here fp32" in text(section(root, "kits"))


def test_a_run_that_does_not_say_that_it_passed_did_not(bare: Bundle, tmp_path: Path) -> None:
    """As a run leaves it that ended in the benchmark without an error that was written down."""
    file = tmp_path / "result.json"
    without = {name: value for name, value in documents.kit_result().items() if name != "passed"}
    for result in (documents.kit_result(passed=False, benchmark=None), without):
        file.write_text(json.dumps(result))
        root = report(bare, read_kit_result(file))
        assert section(root, "kits").get("class") == "failed"
        assert "did not come to its end, and the result does not say why" in text(section(root, "kits"))
        assert tiles(root)["jetson-orin-nano-8gb"].startswith("failed")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "valid JSON"),
        ("[]", "the document must be an object"),
        ('{"kit": {}}', r"kit\.device must be there"),
        (json.dumps(documents.kit_result(build=3)), "build must be an object"),
    ],
)
def test_a_file_that_no_kit_wrote_is_refused(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(content)
    with pytest.raises(BundleError, match=words) as caught:
        read_kit_result(file)
    assert str(file) in str(caught.value)


def test_the_same_facts_as_json(measured: Bundle) -> None:
    source = Source.of(measured)
    document = json.loads(json.dumps(document_of(source, page_of(source)), allow_nan=False))
    parts = document["sections"]
    assert document["manifest_sha256"] == measured.manifest_sha256
    for part, expected in (
        ("parity", documents.parity()),
        ("perplexity", documents.perplexity()),
        ("speed", documents.bench()),
    ):
        assert parts[part]["state"] == "ok"
        assert parts[part]["data"]["current"] is True
        assert parts[part]["data"]["document"] == expected
    assert parts["cache"]["data"]["bytes_per_token"] == measured.manifest.cache.bytes_per_token
