"""Requirements against what is installed, and the runtime probed in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.device import packages
from edgekit.device.packages import PackageState, onnxruntime_providers, package_states


def test_states_follow_markers_and_specifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "installed_version", {"click": "8.5", "torch": "2.12.0+cpu", "Jinja2": "3.1"}.get)
    requirements = [
        "click>=8.1",
        "Jinja2>=3.2",
        'tomli; python_version < "3"',
        'torch==2.13.0; extra == "export"',
        'onnxruntime>=1.31; python_version >= "3" and extra == "cpu"',
        'onnxruntime>=1.23; python_version < "3" and extra == "cpu"',
    ]
    assert package_states(requirements) == [
        PackageState("click", "click>=8.1", "8.5", "", True),
        PackageState("jinja2", "jinja2>=3.2", "3.1", "", False),
        PackageState("onnxruntime", "onnxruntime>=1.31", None, "cpu", False),
        PackageState("torch", "torch==2.13.0", "2.12.0+cpu", "export", False),
    ]


def _module(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "onnxruntime.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_providers_of_a_working_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _module(tmp_path, "def get_available_providers(): return ['CPUExecutionProvider']", monkeypatch)
    assert onnxruntime_providers() == (["CPUExecutionProvider"], "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ImportError('libcudart.so.13: cannot open')", "ImportError: libcudart.so.13: cannot open"),
        ("import os; os.kill(os.getpid(), 4)", "importing it ended with SIGILL"),
        ("raise SystemExit(7)", "exit code 7"),
    ],
)
def test_a_broken_runtime_gives_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    _module(tmp_path, text, monkeypatch)
    assert onnxruntime_providers() == ([], reason)


def test_a_runtime_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _module(tmp_path, "import time; time.sleep(60)", monkeypatch)
    assert onnxruntime_providers(timeout_s=1) == ([], "importing it took more than 1 s")
