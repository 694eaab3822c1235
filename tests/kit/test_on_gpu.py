"""scripts/on-gpu where there is no GPU: it says so and runs nothing. Its steps are tried with stand-ins for the GPU."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from edgekit.bundle import Bundle
from edgekit.runtime.session import session_from_bundle
from tests import gpu_tools

SCRIPT = Path(__file__).parents[2] / "scripts" / "on-gpu"
STEPS = ["machine", "library", "tests", "bundles"]


@pytest.fixture
def script() -> ModuleType:
    loader = SourceFileLoader("on_gpu", str(SCRIPT))
    spec = spec_from_loader("on_gpu", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=120)


def test_without_a_gpu_it_stops_with_the_reason_and_writes_nothing(tmp_path: Path) -> None:
    if gpu_tools.no_tensorrt() is None:
        pytest.skip("there is a GPU")
    done = run(folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "nothing was run: no GPU: " in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_dry_run_lists_the_steps(tmp_path: Path) -> None:
    done = run("--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == STEPS
    assert run("--dry-run", "--only", "tests,machine", folder=tmp_path).stdout.split() == ["tests", "machine"]
    assert not list(tmp_path.iterdir())


def test_an_unknown_step_is_refused(tmp_path: Path) -> None:
    done = run("--only", "kernels", folder=tmp_path)
    assert done.returncode == 2
    assert "a step is one of machine, library, tests, bundles" in done.stderr


def arguments(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"bundles": [], "repetitions": 1, **changes})


@pytest.mark.parametrize("right", [True, False])
def test_a_bundle_is_compared_before_it_is_measured(
    script: ModuleType, bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    """ONNX Runtime stands in for the engine, and where it must be wrong, over another bundle."""
    bundle = bundles["llama-tensorrt"]
    other = bundle if right else bundles["t6-jetpack6"]
    monkeypatch.setattr(gpu_tools, "build_request", lambda: None)
    monkeypatch.setattr("edgekit.build.bundle_engine.prepared_build", lambda *given: None)
    entry = SimpleNamespace(to_dict=lambda: {"name": "a stand-in"})
    monkeypatch.setattr("edgekit.build.bundle_engine.engine_from_bundle", lambda prepared: (entry, "built"))
    monkeypatch.setattr(
        "edgekit.runtime.session.session_from_bundle",
        lambda given, backend="cpu": session_from_bundle(other if backend == "tensorrt" else given, threads=1),
    )
    if right:
        found = script.bundles(arguments(bundles=[bundle.path]))[str(bundle.path)]
        assert found["parity"]["passed"]
        assert found["benchmark"]["decodes"][0]["s_per_token"]["median"] > 0
    else:
        with pytest.raises(script.StepFailed) as caught:
            script.bundles(arguments(bundles=[bundle.path]))
        found = caught.value.result[str(bundle.path)]
        assert not found["parity"]["passed"]
        assert "benchmark" not in found


def test_tests_that_are_all_skipped_have_not_passed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text("import pytest\n\n\n@pytest.mark.gpu\ndef test_it():\n    pytest.skip('no')\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: it\n")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    with pytest.raises(script.StepFailed, match="0 of 1 failed, 1 skipped"):
        script.tests(arguments())
    (tmp_path / "test_it.py").write_text("import pytest\n\n\n@pytest.mark.gpu\ndef test_it():\n    pass\n")
    assert script.tests(arguments()) == {"run": 1, "failed": [], "skipped": []}


def test_a_step_that_fails_costs_the_others_nothing(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_tools, "no_tensorrt", lambda: None)
    steps = {"machine": lambda given: {"gpu": 1}, "library": lambda given: 1 / 0, "tests": lambda given: {"run": 3}}
    monkeypatch.setattr(script, "STEPS", steps)
    monkeypatch.setattr(sys, "argv", ["on-gpu", "-o", str(tmp_path / "found.json"), "--only", ",".join(steps)])
    assert script.main() == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["passed"] is False
    assert {name: step["status"] for name, step in found["steps"].items()} == {
        "machine": "passed",
        "library": "failed",
        "tests": "passed",
    }
    assert "ZeroDivisionError" in found["steps"]["library"]["reason"]
