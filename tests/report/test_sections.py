"""A report as a whole: its sections and figures, and what is missing, stale or damaged says so. Each section's own: the
files beside this one."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

import edgekit.report.sections
from edgekit.bundle import Bundle, write_sidecar
from edgekit.errors import BundleError
from edgekit.report.collect import document_of, page_of, section_makers
from edgekit.report.source import Source
from tests.report import documents
from tests.report.documents import with_manifest
from tests.report.reading import report, section, text, tiles


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
