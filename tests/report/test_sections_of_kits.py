"""The report on what device kits brought back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import Bundle
from edgekit.errors import BundleError
from edgekit.report.kit_result import read_kit_result
from tests.report import documents
from tests.report.reading import facts, report, section, table, text, tiles


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
