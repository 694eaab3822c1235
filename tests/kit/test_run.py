"""A kit's command, run where there is no such device: up to the point where a GPU is needed, which it says."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import BuildError, EdgekitError, ParityFailed
from edgekit.kit import run as runner
from edgekit.kit.document import Kit
from edgekit.kit.run import RunOptions, run_kit
from edgekit.report.kit_result import read_kit_result
from tests.gpu_tools import no_gpu
from tests.runtime.fake_cuda import FakeCudart

#: What a device has no need of.
BLOCKED = ("torch", "onnx", "onnxruntime", "click", "rich", "jinja2", "tokenizers", "platformdirs", "prompt_toolkit")


def run_sh(kit: Kit, *arguments: str, cwd: str | Path = "/", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [os.path.relpath(kit.path / "run.sh", cwd), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": "", **environment},
    )


def test_it_runs_to_where_a_gpu_is_needed(kit: Kit, tmp_path: Path) -> None:
    if no_gpu() is None:
        pytest.skip("there is a GPU")
    # Nothing but numpy and the standard library may be imported.
    blocks = "".join(f"sys.modules[{name!r}] = None\n" for name in BLOCKED)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{blocks}")
    done = run_sh(kit, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "this kit builds and runs on NVIDIA Jetson Orin Nano 8GB" in done.stderr
    assert "GPU" in done.stderr
    assert "Traceback" not in done.stderr
    result = json.loads((kit.path / "results" / "result.json").read_text())
    assert result["passed"] is False
    assert result["failure"]["stage"] == "machine"
    assert result["kit_sha256"] == kit.sha256
    assert result["kit"]["device"] == kit.manifest.device
    found = read_kit_result(kit.path / "results" / "result.json")
    assert found.failure == result["failure"]
    assert found.machine is None


def test_its_files_can_be_checked_alone(kit: Kit) -> None:
    done = run_sh(kit, "--verify")
    assert done.returncode == 0, done.stderr
    assert f"{len(kit.manifest.files)} files are as they were made" in done.stderr


def test_the_code_that_runs_is_the_kit_s_wherever_it_is_started(kit: Kit, tmp_path: Path) -> None:
    fake = tmp_path / "edgekit" / "kit"
    fake.mkdir(parents=True)
    for file in (tmp_path / "edgekit" / "__init__.py", fake / "__init__.py", fake / "__main__.py"):
        file.write_text("raise SystemExit('the working directory was preferred')\n")
    done = run_sh(kit, "--verify", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "files are as they were made" in done.stderr


def test_relative_paths_are_those_of_the_directory_it_is_started_in(kit: Kit, tmp_path: Path) -> None:
    place = tmp_path / "with space"
    (place / "bin").mkdir(parents=True)
    (place / "more").mkdir()
    python = place / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    told = "".join(f"print(os.environ[{name!r}], file=sys.stderr)\n" for name in ("EDGEKIT_CACHE", "LD_LIBRARY_PATH"))
    (place / "more" / "sitecustomize.py").write_text(f"import os, sys\n{told}")
    given = {"PYTHONPATH": "none:more", "EDGEKIT_CACHE": "cache", "LD_LIBRARY_PATH": "/nowhere:lib"}
    for name, path in (("bin/python", os.defpath), ("python", f"bin:{os.defpath}")):
        done = run_sh(kit, "--verify", cwd=place, PYTHON=name, PATH=path, **given)
        assert done.returncode == 0, done.stderr
        assert f"{place}/cache\n/nowhere:{place}/lib\n" in done.stderr


def test_a_python_that_is_not_there_is_named(kit: Kit) -> None:
    done = run_sh(kit, PYTHON="python-of-nowhere")
    assert done.returncode == 1
    assert "there is no python-of-nowhere" in done.stderr


def test_without_numpy_it_says_what_to_install(kit: Kit, tmp_path: Path) -> None:
    fake = tmp_path / "python"
    # A Python that has no package at all.
    fake.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    fake.chmod(0o755)
    done = run_sh(kit, PYTHON=str(fake))
    assert done.returncode == 1
    assert "needs numpy" in done.stderr
    assert "pip install --target" in done.stderr


def test_a_python_that_is_too_old_is_named(kit: Kit, tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.8.10" && exit 0\nexit 1\n')
    fake.chmod(0o755)
    done = run_sh(kit, PYTHON=str(fake))
    assert done.returncode == 1
    assert "Python 3.8.10" in done.stderr


def fails(kit: Kit) -> EdgekitError:
    with pytest.raises(EdgekitError) as caught:
        run_kit(kit, RunOptions(), lambda text: None)
    return caught.value


def test_another_gpu_and_another_tensorrt_are_refused(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "load_cuda", FakeCudart(compute_capability=(8, 9)).cuda)
    error = fails(kit)
    assert isinstance(error, BuildError)
    assert "compute capability 87, this GPU 89" in error.fact
    monkeypatch.setattr(runner, "load_cuda", FakeCudart(compute_capability=(8, 7)).cuda)

    class Backend:
        def load(self, device: str) -> Any:
            return type("trt", (), {"__version__": "10.16.1"})

    monkeypatch.setattr(runner, "backend_named", lambda name: Backend())
    error = fails(kit)
    assert "made for TensorRT 10.3 (JetPack 6.2)" in error.rule
    assert "10.16.1" in error.fact


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_repetitions_that_are_none(kit: Kit, value: str) -> None:
    done = run_sh(kit, f"--repetitions={value}")
    assert done.returncode == 2
    assert "is not a whole number of at least 1" in done.stderr


@pytest.mark.parametrize(("number", "words", "code"), [(errno.EROFS, "permissions", 1), (errno.ENOSPC, "disk", 4)])
def test_a_kit_that_cannot_be_written_to(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, words: str, code: int
) -> None:
    from edgekit.kit.__main__ import main

    def refuse(kit: Kit, *rest: object) -> None:
        raise OSError(number, os.strerror(number), str(kit.path / "results"))

    monkeypatch.setattr(runner, "run_kit", refuse)
    assert main([str(kit.path)]) == code
    said = capsys.readouterr().err
    assert words in said
    assert str(kit.path / "results") in said


def test_a_library_for_another_processor_is_refused(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "load_cuda", FakeCudart(compute_capability=(8, 7)).cuda)
    monkeypatch.setattr(runner.platform, "machine", lambda: "x86_64")
    error = fails(replace(kit, manifest=replace(kit.manifest, plugin_library="libedgekit_tensorrt.so")))
    assert "its plugin library is for aarch64, this machine is x86_64" in error.fact
    assert "--plugin-library" in error.next_step


def test_a_failed_parity_is_in_the_result_and_nothing_is_measured(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages before it are stand-ins: only what comes of a wrong session is looked at."""
    from edgekit.bundle import read_bundle
    from tests.runtime.fake_sessions import HashSession

    class Wrong(HashSession):
        def __init__(self) -> None:
            super().__init__(vocab=kit_vocab, capacity=128)

    bundle = read_bundle(kit.path / "bundle")
    kit_vocab = bundle.manifest.model.vocab_size
    monkeypatch.setattr(runner._Runner, "machine", lambda self: {})
    monkeypatch.setattr(runner._Runner, "build", lambda self: setattr(self, "_bundle", bundle) or {})
    monkeypatch.setattr(runner, "session_from_bundle", lambda bundle, backend: Wrong())
    error = fails(kit)
    assert isinstance(error, ParityFailed)
    assert error.exit_code == 3
    result = json.loads((kit.path / "results" / "result.json").read_text())
    assert result["failure"]["stage"] == "parity"
    assert result["parity"]["passed"] is False
    assert "benchmark" not in result


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (OSError(errno.EIO, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (OSError("bad \udcff name"), "OSError: bad \\udcff name"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_whatever_ends_a_run_is_in_the_result(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, error: BaseException, fact: str
) -> None:
    def stops(self: object) -> None:
        raise error

    monkeypatch.setattr(runner._Runner, "machine", lambda self: {})
    monkeypatch.setattr(runner._Runner, "build", stops)
    with pytest.raises(type(error)) as caught:
        run_kit(kit, RunOptions(), lambda text: None)
    assert caught.value is error
    found = read_kit_result(kit.path / "results" / "result.json")
    assert found.machine == {}
    assert not found.passed
    assert found.failure is not None
    assert (found.failure["stage"], found.failure["kind"]) == ("build", type(error).__name__)
    assert found.failure["fact"] == fact


def test_a_session_that_cannot_be_closed_costs_no_result(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(self: object) -> None:
        raise OSError("gone")

    def breaks(self: object) -> None:
        raise RuntimeError("closing")

    monkeypatch.setattr(runner._Runner, "machine", stops)
    monkeypatch.setattr(runner._Runner, "close", breaks)
    (kit.path / "results" / "result.json").unlink(missing_ok=True)
    with pytest.raises(RuntimeError, match="closing"):
        run_kit(kit, RunOptions(), lambda text: None)
    found = read_kit_result(kit.path / "results" / "result.json")
    assert found.failure is not None
    assert found.failure["fact"] == "OSError: gone"


def test_a_session_that_is_right_is_measured(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime stands in for the engine; nothing here is a GPU's speed."""
    from edgekit.bundle import read_bundle
    from edgekit.kit.__main__ import summary
    from edgekit.runtime.session import session_from_bundle

    bundle = read_bundle(kit.path / "bundle")
    monkeypatch.setattr(runner._Runner, "machine", lambda self: {})
    monkeypatch.setattr(runner._Runner, "build", lambda self: setattr(self, "_bundle", bundle) or {})
    monkeypatch.setattr(runner, "session_from_bundle", lambda bundle, backend: session_from_bundle(bundle, threads=1))
    result = run_kit(kit, RunOptions((16, 4096), (8, 4096), 4, 2), lambda text: None)
    assert result["passed"] is True
    limit = bundle.manifest.cache.capacity_limit
    assert [prompt["tokens"] for prompt in result["benchmark"]["prompts"]] == [16, limit]
    assert [decode["depth"] for decode in result["benchmark"]["decodes"]] == [8, limit - 4]
    assert result["benchmark"]["telemetry"]["missing"] or result["benchmark"]["telemetry"]["source"]
    assert json.loads((kit.path / "results" / "result.json").read_text()) == json.loads(json.dumps(result))
    assert len([line for line in summary(result) if not line.startswith(("power", "energy"))]) == 5
    assert any(line.startswith("power: ") for line in summary(result))
    found = read_kit_result(kit.path / "results" / "result.json")
    assert found.benchmark == json.loads(json.dumps(result["benchmark"]))
    assert found.failure is None
