"""`edgekit doctor` reports what is there and, for what is not, what it would enable and how to get it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.cli import doctor
from edgekit.device import host, packages
from edgekit.native import ort_library


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nothing but the base, whose cache disk is nearly full."""
    installed = {"click": "8.5.1", "onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1", "onnx": "1.19.0"}
    requirements = ["click>=8.1", 'onnxruntime>=1.31; extra == "cpu"', 'onnx>=1.23; extra == "export"']
    monkeypatch.setattr(packages, "installed_version", installed.get)
    monkeypatch.setattr(metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(packages, "onnxruntime_providers", lambda: ([], "ImportError: libcudart.so.13"))
    monkeypatch.setattr(host, "cpu", lambda: host.Cpu("x86_64", "Test CPU", 2, frozenset({"avx2"})))
    monkeypatch.setattr(host, "gpus", list)
    monkeypatch.setattr(host, "compiler", lambda name: None)
    monkeypatch.setattr(host, "disk_free_bytes", lambda path: 10**9)


def _findings(*arguments: str) -> dict[str, dict[str, str]]:
    result = CliRunner().invoke(doctor.command, ["--json", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}


@pytest.mark.usefixtures("bare_machine")
def test_each_missing_piece_says_what_and_how() -> None:
    findings = _findings()
    assert findings["base packages"]["status"] == "ok"
    assert findings["extra cpu"]["status"] == "ok"
    export = findings["extra export"]
    assert export["value"] == "needs onnx>=1.23 (found 1.19.0)"
    assert "edgekit[export]" in export["how"]
    assert export["enables"]
    assert findings["disk"]["status"] == "warning"
    assert "EDGEKIT_CACHE" in findings["disk"]["how"]
    assert findings["avx2"]["status"] == "ok"
    assert findings["avx512_vnni"]["status"] == "missing"
    assert findings["NVIDIA GPU"]["status"] == "missing"
    assert findings["nvcc"]["how"]


@pytest.mark.usefixtures("bare_machine")
def test_both_runtimes_at_once_are_a_warning_with_the_way_out() -> None:
    findings = _findings()
    assert findings["onnxruntime"]["status"] == "warning"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in findings["onnxruntime"]["how"]


@pytest.mark.usefixtures("bare_machine")
def test_native_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler; one; and a library that is there."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = _findings()["native operators"]
    assert finding["status"] == "missing"
    assert finding["value"] == "none of c++, g++, clang++ is on the PATH"
    assert "apt install g++" in finding["how"]
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\necho fake 1.0\n[ "$1" = --version ] && exit\nfor last; do :; done; : > "$last"\n')
    compiler.chmod(0o755)
    finding = _findings()["native operators"]
    assert (finding["status"], finding["value"]) == ("ok", "compiled at their first use, by fake 1.0")
    library = ort_library(lambda text: None)
    assert _findings()["native operators"]["value"] == f"compiled, {library}, by fake 1.0"


@pytest.mark.usefixtures("bare_machine")
def test_a_runtime_that_does_not_import_gives_its_reason() -> None:
    assert _findings()["execution providers"]["value"] == "ImportError: libcudart.so.13"


@pytest.mark.usefixtures("bare_machine")
def test_the_text_report_has_every_finding() -> None:
    result = CliRunner().invoke(doctor.command, [], catch_exceptions=False)
    for name, finding in _findings().items():
        assert f"  {name}: {finding['value']}" in result.stdout
        assert finding["how"] in result.stdout


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize(
    ("smi", "status", "value"),
    [
        ("NVIDIA L4, 8.9, 23034, 580.65.06, 72.00, 2040\n", "ok", "l4"),
        ("NVIDIA L4, 8.9, 23034, 580.65.06, 40.00, 2040\n", "warning", "l4, but the power limit is 40 W of 72 W"),
        ("NVIDIA T4, 7.5, 15360, 580.65.06, 70.00, 1590\n", "missing", "NVIDIA T4 is none"),
    ],
)
def test_a_card_is_named_by_its_profile(monkeypatch: pytest.MonkeyPatch, smi: str, status: str, value: str) -> None:
    monkeypatch.setattr(host, "gpus", lambda: [host.Gpu(smi.split(",")[0], "driver")])
    monkeypatch.setattr(host, "output", lambda command: smi if command[0] == "nvidia-smi" else None)
    finding = _findings()["known device"]
    assert (finding["status"], finding["value"]) == (status, value)
    assert bool(finding["how"]) == (status != "ok")


def test_on_this_machine() -> None:
    findings = _findings()
    assert findings["Python"]["status"] == "ok"
    assert "usable cores" in findings["CPU"]["value"]
    assert "GB free at" in findings["disk"]["value"]
