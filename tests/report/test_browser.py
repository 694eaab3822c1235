"""The page in a real browser: it is drawn, fits wide and narrow windows, and follows the reader's colour scheme."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle import Bundle, read_bundle, write_sidecar
from edgekit.report.collect import page_of
from edgekit.report.kit_result import read_kit_result
from edgekit.report.page import html_of
from edgekit.report.source import Source
from tests.report import documents
from tests.report.browser import browser, layout, screenshot

WIDTHS = (1280, 390)


@pytest.fixture(autouse=True)
def _browser() -> None:
    browser()


@pytest.fixture
def html(measured: Bundle, tmp_path: Path) -> str:
    """A page with every kind of section, and names as long as they come."""
    manifest = json.loads((measured.path / "manifest.json").read_text())
    manifest["model"]["name"] = "An-Organisation/a-model-with-a-very-long-name-that-has-no-place-to-break-" + "x" * 60
    manifest["operators"] = [{"name": "TPAAttention", "version": 1, "nodes": 5}]
    manifest["provenance"] = {
        "checkpoint": {"path": "p" * 200, "files": [{"name": "f" * 120, "bytes": 1, "sha256": "a" * 64}]}
    }
    manifest["rules"] = {"r" * 90: {"fired": 1, "refused": [{"node": "n" * 90, "reason": "w" * 90}]}}
    (measured.path / "manifest.json").write_text(json.dumps(manifest))
    bundle = read_bundle(measured.path)
    write_sidecar(bundle, "bench", documents.bench(session="s" * 150))
    result = tmp_path / "result.json"
    result.write_text(json.dumps(documents.kit_result()))
    return html_of(page_of(Source.of(bundle, (read_kit_result(result),))))


def pixels(picture: Path) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(picture))[:, :, :3]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out(width: int, html: str, tmp_path: Path) -> None:
    found = layout(html, tmp_path, width)
    assert found["width"] == width
    assert found["out"] == []
    assert found["scroll"] <= width
    # Of each pair of drawings one is shown, and its letters can be read.
    assert found["shown"] == html.count("<svg") / 2
    assert found["smallest"] >= 11


def test_the_probe_sees_what_sticks_out(html: str, tmp_path: Path) -> None:
    wide = html.replace("<footer>", '<div class="too-wide" style="width: 500px">too wide</div><footer>')
    assert [line for line in layout(wide, tmp_path, 390)["out"] if "too-wide" in line]


@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_drawn_in_either_scheme(width: int, html: str, tmp_path: Path) -> None:
    light = pixels(screenshot(html, tmp_path, width, 1200))
    dark = pixels(screenshot(html, tmp_path, width, 1200, dark=True))
    for picture in (light, dark):
        colours = {tuple(colour) for colour in (picture[::3, :width:3].reshape(-1, 3) * 255).astype(int)}
        assert len(colours) > 100
        assert picture[:, :width].std() > 0.05
    assert light[:, :width].mean() > 0.8
    assert dark[:, :width].mean() < 0.3
