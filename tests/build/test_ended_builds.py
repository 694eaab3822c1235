"""Builds that are ended, by Ctrl-C, memory, a full disk or TensorRT itself: nothing half-made is left.

Other wrong situations are in test_wrong_situations.py.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgekit.build.bundle_engine import engine_from_bundle, prepared_build
from edgekit.build.job import Job
from edgekit.build.process import build_in_process
from edgekit.bundle import Bundle
from edgekit.bundle.read import read_manifest
from edgekit.cli.build import command
from edgekit.errors import BuildError, DoesNotFit
from tests.build.bundles import copied, need_tensorrt_rtx, processes_of, request, tiny_bundle

ROOT = Path(__file__).parents[2]
JOB = Job(model="", destination="", backend="tensorrt-rtx", device_kind="rtx", profiles={})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    need_tensorrt_rtx()
    return tiny_bundle(tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let another process take the place of the builder; FD is its descriptor for events."""
    from edgekit.build import process

    usual = subprocess.Popen

    def popen(arguments: list[str], **options: Any) -> Any:
        program = f"import sys; FD = int(sys.argv[1])\n{code}"
        return usual([sys.executable, "-c", program, arguments[-1]], **options)

    monkeypatch.setattr(process.subprocess, "Popen", popen)


def untouched(made: Bundle, original: Bundle) -> None:
    """Nothing half-made is left in the bundle or beside it."""
    assert read_manifest(made.path).manifest_sha256 == original.manifest_sha256
    assert [path.name for path in made.path.parent.iterdir()] == ["bundle"]
    assert sorted(path.name for path in made.path.iterdir()) == sorted(path.name for path in original.path.iterdir())


def test_a_disk_that_runs_full_during_the_build(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build process says so, and the bundle stays as it was."""
    made = copied(bundle, tmp_path / "place" / "bundle")
    code = f'import os; os.write(FD, b\'{{"event": "os_error", "errno": {errno.ENOSPC}, "text": "", "file": ""}}\\n\')'
    instead(monkeypatch, code)
    with pytest.raises(DoesNotFit, match="ran full"):
        engine_from_bundle(prepared_build(made, request()))
    untouched(made, bundle)


def test_a_memory_limit_that_is_hit(bundle: Bundle, tmp_path: Path) -> None:
    """TensorRT alone holds more than 60 MB once it is loaded."""
    made = copied(bundle, tmp_path / "place" / "bundle")
    options = ["--device", "rtx-4090", "--max-kv-cache-capacity", "32", "--memory-limit", "60MB"]
    error = CliRunner().invoke(command, [str(made.path), *options]).exception
    assert isinstance(error, DoesNotFit)
    assert error.exit_code == 4
    assert "of at most 60 MB, and was stopped" in error.fact
    assert "raise --memory-limit" in error.next_step
    untouched(made, bundle)
    assert processes_of(os.getpid()) == []


def test_a_machine_that_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.build import process
    from edgekit.device.host import Memory

    monkeypatch.setattr(process, "memory", lambda: Memory(8_000_000_000, 200_000_000))
    instead(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(DoesNotFit, match="must leave the machine enough memory") as caught:
        build_in_process(JOB)
    assert "200 MB of 8.0 GB were left" in caught.value.fact
    assert processes_of(os.getpid()) == []


def test_tensorrt_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    instead(monkeypatch, "import os; print('terminate called', flush=True); os.abort()")
    with pytest.raises(BuildError, match=r"it ended the build process \(SIGABRT\): terminate called"):
        build_in_process(JOB)


def test_the_system_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    instead(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(DoesNotFit, match="the system ended it, as it does when memory runs out"):
        build_in_process(JOB)


def test_a_command_that_is_killed_leaves_no_builder_and_the_next_one_works(bundle: Bundle, tmp_path: Path) -> None:
    made = copied(bundle, tmp_path / "place" / "bundle")
    arguments = [sys.executable, "-m", "edgekit.cli.main", "build", str(made.path), "--device", "rtx-4090"]
    arguments += ["--max-kv-cache-capacity", "32", "--progress", "json"]
    started = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert started.stderr is not None
    children: list[int] = []
    for line in started.stderr:
        if line.startswith("{") and json.loads(line)["phase"] == "Building engine":
            children = processes_of(started.pid)
            started.kill()
            break
    started.communicate(timeout=60)
    assert children
    # At once: TensorRT may hold Python for minutes, in which no thread of the builder could see that it is alone.
    deadline = time.monotonic() + 2
    while any(_runs(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(child) for child in children)
    assert read_manifest(made.path).manifest_sha256 == bundle.manifest_sha256
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert [engine.name for engine in read_manifest(made.path).manifest.engines] == ["sm89-fp16"]
    assert [path.name for path in made.path.parent.iterdir()] == ["bundle"], "what the killed one left is gone"


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("after", ["first line", "engine"])
def test_ctrl_c(bundle: Bundle, tmp_path: Path, after: str) -> None:
    made = copied(bundle, tmp_path / "place" / "bundle")
    arguments = [sys.executable, "-m", "edgekit.cli.main", "build", str(made.path), "--device", "rtx-4090"]
    arguments += ["--max-kv-cache-capacity", "32", "--progress", "json"]
    started = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert started.stderr is not None
    children: list[int] = []
    for line in started.stderr:
        event = json.loads(line) if line.startswith("{") else {}
        if event and (after == "first line" or event["phase"] == "Building engine"):
            children = processes_of(started.pid)
            started.send_signal(signal.SIGINT)
            break
    assert children
    _, rest = started.communicate(timeout=60)
    assert started.returncode == 130
    assert rest.splitlines()[-1] == "interrupted"
    untouched(made, bundle)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
