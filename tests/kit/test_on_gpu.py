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
STEPS = ["machine", "kernels", "sanitizer", "library", "tests", "bundles"]


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
    if gpu_tools.no_gpu() is None:
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
    done = run("--only", "kernel", folder=tmp_path)
    assert done.returncode == 2
    assert "a step is one of machine, kernels, sanitizer, library, tests, bundles" in done.stderr


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
    found = ran(
        script,
        monkeypatch,
        tmp_path,
        {
            "machine": (lambda given: {"gpu": 1}, None),
            "library": (lambda given: 1 / 0, None),
            "tests": (lambda given: {"run": 3}, None),
        },
        code=1,
    )
    assert found["passed"] is False
    assert {name: step["status"] for name, step in found["steps"].items()} == {
        "machine": "passed",
        "library": "failed",
        "tests": "passed",
    }
    assert "ZeroDivisionError" in found["steps"]["library"]["reason"]


def ran(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    steps: dict[str, tuple[Any, str | None]],
    code: int,
) -> dict[str, Any]:
    """The JSON of a run of these steps: what each does, and why it would not run."""
    monkeypatch.setattr(gpu_tools, "no_gpu", lambda: None)
    made = {name: script.Step(run, lambda lacks=lacks: lacks) for name, (run, lacks) in steps.items()}
    monkeypatch.setattr(script, "STEPS", made)
    monkeypatch.setattr(sys, "argv", ["on-gpu", "-o", str(folder / "found.json"), "--only", ",".join(steps)])
    assert script.main() == code
    return json.loads((folder / "found.json").read_text())


def test_a_step_that_lacks_something_is_not_run_and_fails_nothing(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {"kernels": (lambda given: {}, None), "bundles": (lambda given: 1 / 0, "no TensorRT for this GPU: none")}
    found = ran(script, monkeypatch, tmp_path, steps, code=0)
    assert found["passed"] is True
    assert found["steps"]["bundles"]["status"] == "not run"
    assert found["steps"]["bundles"]["reason"] == "no TensorRT for this GPU: none"
    assert "all that was run passed; not run: bundles" in capsys.readouterr().err


def test_where_nothing_could_be_run_nothing_has_passed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = ran(script, monkeypatch, tmp_path, {"bundles": (lambda given: {}, "no TensorRT")}, code=1)
    assert found["passed"] is False


def test_a_command_is_ended_at_its_time_with_its_children(script: ModuleType) -> None:
    code, said = script.run_command(["sh", "-c", "echo begun; sleep 60 & sleep 60"], timeout_s=1.0)
    assert code == -9
    assert said == "begun\n"
    assert script.run_command(["sh", "-c", "echo out; echo err >&2; exit 3"], 60.0) == (3, "out\nerr\n")


@pytest.fixture
def watched(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A compute-sanitizer that finds something where its tool is called racecheck."""
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(
        '#!/bin/sh\necho "========= COMPUTE-SANITIZER $2"\n[ "$2" = racecheck ] && echo "========= ERROR" && exit 86\n'
        'echo "========= ERROR SUMMARY: 0 errors"; exit 0\n'
    )
    tool.chmod(0o755)
    monkeypatch.setattr(script, "sanitizer_path", lambda: tool)
    return tool


@pytest.mark.usefixtures("watched")
def test_what_the_sanitizer_finds_fails_its_step(script: ModuleType) -> None:
    given = arguments(sanitizers="memcheck", tests_timeout=60.0)
    found = script.sanitizer(given)["memcheck"]
    assert found["exit"] == 0
    assert found["said"][-1] == "========= ERROR SUMMARY: 0 errors"
    with pytest.raises(script.StepFailed, match="racecheck found something") as caught:
        script.sanitizer(arguments(sanitizers="memcheck,racecheck", tests_timeout=60.0))
    assert caught.value.result["racecheck"]["exit"] == 86
    assert caught.value.result["memcheck"]["exit"] == 0


def test_times_are_kept_however_timing_ends(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(command: list[str], timeout_s: float) -> tuple[int, str]:
        Path(command[command.index("-o") + 1]).write_text('{"rows": [{"operator": "x", "name": "y"}]}')
        return -9, ""

    given = arguments(seconds=1.0)
    monkeypatch.setattr(script, "run_command", killed)
    assert script.times(given) == {"rows": [{"operator": "x", "name": "y"}], "failure": "timing ended with -9"}
    monkeypatch.setattr(script, "run_command", lambda command, timeout_s: (1, ""))
    assert script.times(given) == {"rows": [], "failure": "timing ended with 1 and without a result"}


def test_a_wrong_row_fails_the_kernels_but_costs_no_other(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"operator": "tpa_append", "name": "a"}, {"operator": "tpa_append", "name": "b", "failure": "wrong"}]
    monkeypatch.setattr(script, "run_tests", lambda *given, **more: {"run": 1, "failed": [], "skipped": []})
    monkeypatch.setattr(script, "no_timing", lambda: None)
    monkeypatch.setattr(script, "times", lambda given: {"rows": rows})
    with pytest.raises(script.StepFailed, match="tpa_append b") as caught:
        script.kernels(arguments(tests_timeout=1.0))
    assert caught.value.result["times"]["rows"] == rows
    monkeypatch.setattr(script, "no_timing", lambda: "torch sees no GPU")
    assert script.kernels(arguments(tests_timeout=1.0))["times"] == {"not run": "torch sees no GPU"}


def test_a_run_becomes_a_page(tmp_path: Path) -> None:
    look = {"gpu_clock_hz": 1.98e9, "temperature_c": 40.0}
    row = {
        "operator": "tpa_attention",
        "name": "T6 medium",
        "shape": {"batch": 1, "new": 1, "context": 4096, "dtype": "float16"},
        "seconds": {"median": 20e-6, "p10": 19e-6, "p90": 22e-6},
        "bytes_moved": 4_000_000,
        "bytes_per_s": 2e11,
        "of_copy_bandwidth": 0.1,
        "error": 1.2e-4,
        "baselines": [{"name": "torch attention", "seconds": {"median": 30e-6}, "times_faster": 1.5}],
    }
    wrong = {**row, "failure": "differs from the reference"}
    del wrong["seconds"]
    times = {
        "torch": "2.11",
        "before": {"gpu": {"name": "NVIDIA X", "driver": "580.1"}, "reading": look},
        "after": {"reading": look},
        "copy": {"bytes_copied": 2 << 30, "bytes_per_s": 2e12},
        "telemetry": {"mean_power_w": 300.0, "mean_gpu_clock_hz": 1.9e9},
        "rows": [row, wrong, {**row, "failure": "the answers changed"}],
        "not_run": [{}],
    }
    tests = {"run": 10, "failed": [], "skipped": [{"test": "t", "reason": "r"}]}
    document = {
        "started": "2026-01-01T00:00:00Z",
        "edgekit": "0",
        "steps": {
            "kernels": {"status": "passed", "seconds": 70.0, "result": {"tests": tests, "times": times}},
            "bundles": {"status": "not run", "seconds": 0.0, "reason": "no TensorRT"},
        },
    }
    (tmp_path / "found.json").write_text(json.dumps(document))
    page = run("--markdown", "found.json", folder=tmp_path).stdout
    assert "| kernels | passed | 70 | 9 tests passed, 0 failed, 1 skipped |" in page
    assert "| bundles | not run | 0 | no TensorRT |" in page
    assert "NVIDIA X, driver 580.1, torch 2.11. A copy of 2 GiB within the GPU's memory: 2,000 GB/s" in page
    sizes = "| T6 medium | 1 | 1 | 4096 | float16 | "
    assert sizes + "20.0 (19.0 to 22.0) | 4.00 | 200 | 10% | 30.0 | 1.50 | 1.2e-04 |" in page
    assert sizes + "differs from the reference |" in page
    assert sizes + "the answers changed |  |  |  |" in page
    assert "1 rows were not run" in page
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    tables = [line.count("|") for line in lines if "T6" in line or "p10" in line]
    assert len(set(tables)) == 1


def test_the_tables_of_a_run_are_those_of_its_json() -> None:
    kept = SCRIPT.parents[1] / "docs" / "gpu"
    page = run("--markdown", str(kept / "h200.json"), folder=kept).stdout
    tables = [part for part in page.split("\n\n") if part.startswith("|")]
    assert len(tables) == 4
    told = (kept / "h200.md").read_text(encoding="utf-8")
    for table in tables:
        assert table in told
