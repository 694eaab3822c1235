"""The report on time: speed and power, drafting, and the bound of decoding."""

from __future__ import annotations

import re

import pytest

from edgekit.bundle import Bundle, write_sidecar
from edgekit.errors import BundleError
from edgekit.report.sections import drafting
from edgekit.report.svg import Lines
from tests.report import documents
from tests.report.documents import with_manifest
from tests.report.reading import facts, report, section, table, text, tiles


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


def test_speed_of_answers_that_were_not_proven(bare: Bundle) -> None:
    write_sidecar(bare, "bench", documents.bench(parity=None))
    assert "answers were not proven" in text(section(report(bare), "speed"))


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


def test_the_bound_beside_the_measurement(measured: Bundle) -> None:
    rows = table(section(report(measured), "plan"), "The bound of decoding")
    assert rows == {"128": ["165 MB", "4.07 ms", "23.8 ms", "17.4 %"]}


def test_without_a_bandwidth_there_is_no_bound(bare: Bundle) -> None:
    document = documents.bench()
    document["decodes"][0]["roofline"] = None
    write_sidecar(bare, "bench", document)
    assert "could not be measured" in text(section(report(bare), "plan"))
