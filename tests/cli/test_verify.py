"""`edgekit verify` reports every file, and exits with 5 when one differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.cli.verify import command
from edgekit.errors import BundleError

Writer = Callable[..., Path]


def _verify(*arguments: str) -> tuple[str, BundleError | None]:
    result = CliRunner().invoke(command, list(arguments))
    if result.exception is None:
        return result.stdout, None
    assert isinstance(result.exception, BundleError), result.exception
    return result.stdout, result.exception


def test_intact_bundle(paper_bundle: Writer) -> None:
    path = paper_bundle()
    output, error = _verify(str(path))
    assert error is None
    assert "model.onnx.data               10,240  ok" in output
    assert "4 files, 10,751 bytes, all as the manifest says" in output


def test_every_damaged_file_is_in_the_table(paper_bundle: Writer) -> None:
    path = paper_bundle()
    (path / "config.json").write_bytes(b"[]\n")
    (path / "model.onnx").unlink()
    (path / "notes.txt").write_text("mine")
    output, error = _verify(str(path))
    assert error is not None
    assert error.exit_code == 5
    assert "3 of 5 files" in error.fact
    assert "altered: sha256" in output
    assert "missing" in output
    assert "unlisted: the manifest does not list it" in output
    assert output.count(" ok") == 2


@pytest.mark.parametrize("damaged", [False, True])
def test_json(paper_bundle: Writer, damaged: bool) -> None:
    path = paper_bundle()
    if damaged:
        (path / "model.onnx.data").write_bytes(b"short")
    output, error = _verify(str(path), "--json")
    report = json.loads(output)
    assert report["ok"] is not damaged
    assert (error is not None) is damaged
    statuses = {entry["name"]: entry["status"] for entry in report["files"]}
    assert statuses["model.onnx.data"] == ("truncated" if damaged else "ok")
    assert statuses["model.onnx"] == "ok"


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    output, error = _verify(str(tmp_path))
    assert output == ""
    assert error is not None
    assert "manifest.json" in str(error)
