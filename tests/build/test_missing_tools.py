"""What a missing tool means: a skip with its reason, and with EDGEKIT_CI=1 a failure that names it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tools

ROOT = Path(__file__).parents[2]


def outcome(tests: str, folder: Path, **environment: str) -> str:
    """pytest's words on some tests where no tool and no package can be had."""
    (folder / "bin").mkdir()
    # A CUDA that is not on the PATH is hidden from this run alone.
    program = f"import pathlib, sys, pytest, tests.tools as t; t.CUDA = pathlib.Path({str(folder)!r}); "
    program += "sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "-q", "-rsfE", "--tb=line", "-p", "no:cacheprovider", tests]
    clean = {name: value for name, value in os.environ.items() if name not in ("EDGEKIT_CI", "TENSORRT_INCLUDE_DIR")}
    blocked = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    clean |= blocked | {"PATH": str(folder / "bin"), "EDGEKIT_CACHE": str(folder / "cache"), "COLUMNS": "400"}
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("headers", "names"),
    [(True, "nvcc is neither on the PATH nor in"), (False, "kernel-lens==2.0.1 cannot be fetched")],
    ids=["nvcc", "download"],
)
def test_it_is_skipped_or_in_continuous_integration_a_failure(tmp_path: Path, headers: bool, names: str) -> None:
    given = {"TENSORRT_INCLUDE_DIR": str(tmp_path)} if headers else {}
    for part, environment in (("skip", given), ("fail", given | {"EDGEKIT_CI": "1"})):
        (tmp_path / part).mkdir()
        words = outcome("tests/build/test_aarch64.py", tmp_path / part, **environment)
        assert names in words
        assert ("2 skipped" in words, "2 errors" in words) == (part == "skip", part == "fail"), words


@pytest.mark.parametrize("tool", ["aarch64-linux-gnu-g++-12", "qemu-aarch64-static"])
def test_what_is_needed_for_jetson_is_named(tmp_path: Path, tool: str) -> None:
    for part, environment in (("skip", {}), ("fail", {"EDGEKIT_CI": "1"})):
        folder = tmp_path / part
        folder.mkdir()
        programs = folder / "programs"
        programs.mkdir()
        for name in {"nvcc", "aarch64-linux-gnu-g++-12", "qemu-aarch64-static"} - {tool}:
            fake(programs / name, "exit 0")
        given = environment | {"TENSORRT_INCLUDE_DIR": str(folder), "PATH": str(programs)}
        words = outcome("tests/build/test_aarch64.py", folder, **given)
        assert f"{tool} is not installed (apt install " in words
        assert ("2 skipped" in words, "2 errors" in words) == (part == "skip", part == "fail"), words


def test_nvcc_is_found_on_the_path_or_in_the_usual_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, usual = tmp_path / "path", tmp_path / "usual"
    for folder in (path, usual):
        folder.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setattr(tools, "CUDA", usual)
    assert tools.nvcc() is None
    assert "nvcc is neither" in (tools.no_nvcc() or "")
    for folder in (usual, path):
        fake(folder / "nvcc", "exit 0")
        assert tools.nvcc() == folder / "nvcc"
    assert tools.no_nvcc() is None


def fake(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Programs for .ci/run: root with apt, without the tools for aarch64; `make` says what EDGEKIT_CI is."""
    for name in ("bash", "dirname"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    fake(tmp_path / "id", "echo 0")
    fake(tmp_path / "make", 'echo "make $1, EDGEKIT_CI is $EDGEKIT_CI"')
    return tmp_path


def ci(machine: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(machine / "bash"), str(ROOT / ".ci" / "run")],
        env={"PATH": str(machine)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_continuous_integration_fails_where_apt_fails_and_shows_its_words(machine: Path) -> None:
    fake(machine / "apt-get", '[ "$1" = update ] && exit 0; echo "E: Unable to locate package"; exit 100')
    done = ci(machine)
    assert done.returncode != 0
    assert "E: Unable to locate package" in done.stderr
    assert "could not be installed" in done.stderr
    assert "make" not in done.stdout


def test_continuous_integration_lets_nothing_be_missing(machine: Path) -> None:
    fake(machine / "apt-get", "echo much")
    done = ci(machine)
    assert (done.returncode, done.stdout) == (0, "make test, EDGEKIT_CI is 1\n"), done.stderr
    fake(machine / "id", "echo 1000")  # no root: the tests will name what is missing
    fake(machine / "apt-get", "exit 1")
    assert ci(machine).stdout == "make test, EDGEKIT_CI is 1\n"
