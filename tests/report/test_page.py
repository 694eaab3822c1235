"""The page as a file: well-formed, by itself, accessible, and safe with whatever a checkpoint calls itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from edgekit.bundle import Bundle, read_bundle, write_sidecar
from edgekit.report.collect import page_of
from edgekit.report.kit_result import read_kit_result
from edgekit.report.page import TEMPLATES, html_of, is_page
from edgekit.report.source import Source
from tests.report import documents
from tests.report.reading import Element, parsed, text

HOSTILE = "\"'><script>alert(1)</script><img src=http://x.example/y onerror=alert(2)>{{ 7*7 }}&amp;]]>\u202e"


@pytest.fixture
def full(measured: Bundle, tmp_path: Path) -> str:
    """A page with every kind of section."""
    file = tmp_path / "result.json"
    file.write_text(json.dumps(documents.kit_result()))
    return html_of(page_of(Source.of(measured, (read_kit_result(file),))))


@pytest.fixture
def attacked(bare: Bundle, tmp_path: Path) -> str:
    """A page of a bundle whose every free text is hostile."""
    file = bare.path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["model"] |= {"name": HOSTILE, "model_type": HOSTILE}
    manifest |= {
        "dtype": HOSTILE,
        "operators": [{"name": HOSTILE, "version": 1, "nodes": 1}],
        "provenance": {"checkpoint": {"path": HOSTILE, "files": [{"name": HOSTILE, "sha256": HOSTILE}]}},
        "rules": {HOSTILE: {"fired": 1, "refused": [{"node": HOSTILE, "reason": HOSTILE}]}},
        "versions": {HOSTILE: HOSTILE},
        "quantization": {HOSTILE: {HOSTILE: HOSTILE}},
        "recipe": {"file": HOSTILE},
    }
    manifest["cache"] |= {"dtype": HOSTILE, "bytes_per_token_of": {HOSTILE: 5}}
    file.write_text(json.dumps(manifest))
    bundle = read_bundle(bare.path)
    write_sidecar(bundle, "parity", documents.parity(checkpoint=HOSTILE, failure=HOSTILE, passed=False))
    write_sidecar(bundle, "eval", documents.perplexity(text={**documents.perplexity()["text"], "name": HOSTILE}))
    write_sidecar(bundle, "bench", documents.bench(session=HOSTILE, read_bandwidth_method=HOSTILE))
    result = tmp_path / "result.json"
    kit = documents.kit_result(device={HOSTILE: HOSTILE})
    kit["kit"] = dict.fromkeys(kit["kit"], HOSTILE)
    result.write_text(json.dumps(kit))
    return html_of(page_of(Source.of(bundle, (read_kit_result(result),))))


@pytest.mark.parametrize("page", ["full", "attacked"])
def test_nothing_is_fetched_and_nothing_runs(page: str, request: pytest.FixtureRequest) -> None:
    root = parsed(request.getfixturevalue(page))
    tags = {element.tag for element in root.iter()}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "audio", "video", "base", "form", "use"}
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "style", "action", "data", "poster")
            if name == "href":
                assert value.startswith("#")
    (style,) = root.iter("style")
    assert not re.search(r"url\(|@import|expression|javascript", text(style))
    (policy,) = (each for each in root.iter("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.get("content", "").startswith("default-src 'none'")


def test_hostile_names_are_shown_as_they_are(attacked: str) -> None:
    root = parsed(attacked)
    (title,) = root.iter("h1")
    assert text(title) == " ".join(HOSTILE.split())
    assert text(root).count("alert(1)") > 20
    assert "49" not in text(title)


def test_what_is_no_character_is_replaced(bare: Bundle) -> None:
    file = bare.path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["model"]["name"] = "a\x00b\x1bc\ud800d"
    file.write_text(json.dumps(manifest))
    html = html_of(page_of(Source.of(read_bundle(bare.path))))
    (title,) = parsed(html).iter("h1")
    assert text(title) == "a�b�c�d"
    assert html.encode()


def test_the_style_is_not_touched_by_escaping(full: str) -> None:
    assert (TEMPLATES / "style.css").read_text() in full
    assert "</" not in (TEMPLATES / "style.css").read_text()


@pytest.mark.parametrize("page", ["full", "attacked"])
def test_structure_for_those_who_do_not_see_it(page: str, request: pytest.FixtureRequest) -> None:
    root = parsed(request.getfixturevalue(page))
    assert root.get("lang") == "en"
    ids = Counter(element.get("id") for element in root.iter() if element.get("id"))
    assert max(ids.values()) == 1
    for element in root.iter():
        for name in ("aria-labelledby", "aria-describedby"):
            assert all(each in ids for each in element.get(name, "").split())
        if element.tag == "a":
            assert element.get("href", "#")[1:] in ids
    levels = [int(element.tag[1]) for element in root.iter() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    for table in root.iter("table"):
        assert table[0].tag == "caption"
        assert text(table[0])
        heads = [cell for cell in table.iter("th") if cell.get("scope") == "col"]
        widths = {len(row) for body in table.iter("tbody") for row in body}
        assert widths == {len(heads)}
        assert all(row[0].get("scope") == "row" for body in table.iter("tbody") for row in body)
    for svg in root.iter("svg"):
        assert svg.get("role") == "img"
        assert svg.get("aria-labelledby")


def test_each_plot_is_drawn_for_wide_and_for_narrow_windows(full: str) -> None:
    kinds: list[Element] = [
        element for element in parsed(full).iter("div") if element.get("class") in ("wide", "narrow")
    ]
    assert len(kinds) >= 12
    assert all(len(list(element.iter("svg"))) == 1 for element in kinds)
    assert Counter(element.get("class") for element in kinds)["wide"] == len(kinds) / 2


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_measure_of_contrast() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_stand_out(scheme: int) -> None:
    style = (TEMPLATES / "style.css").read_text()
    palette = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", re.findall(r":root \{([^}]+)\}", style)[scheme]))
    for ground in ("page", "sheet", "plain-sheet"):
        for ink in ("ink", "soft", "accent"):
            assert contrast(palette[ink], palette[ground]) >= 4.5, (ink, ground)
    for mood in ("good", "bad", "warn"):
        for ground in (f"{mood}-sheet", "sheet"):
            assert contrast(palette[mood], palette[ground]) >= 4.5, (mood, ground)
        assert contrast(palette["ink"], palette[f"{mood}-sheet"]) >= 4.5
    for index in range(1, 9):
        series = palette[f"c{index}"]
        assert contrast(series, palette["sheet"]) >= 3, series
        assert contrast(palette["on"], series) >= 3.0, series  # bold labels inside bars
    assert len({palette[f"c{index}"] for index in range(1, 9)}) == 8


def test_only_pages_of_edgekit_are_known_as_such(full: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(full)
    assert is_page(file)
    file.write_text("<!DOCTYPE html><html><head><title>edgekit report</title></head></html>")
    assert not is_page(file)
