"""The CUDA kernels on the CPU, watched by AddressSanitizer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.plugins.host_library import compile_source, missing_compiler

SOURCE = Path(__file__).with_name("bounds.cpp")
# One host thread per CUDA thread: the sanitizer knows these stacks.
FLAGS = ("-g", "-DEDGEKIT_CUDA_ON_HOST_THREADS", "-fsanitize=address")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := missing_compiler():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("memory")
    probe = folder / "probe.cpp"
    probe.write_text("int main() {}\n")
    command = ["g++", "-fsanitize=address", str(probe), "-o", str(folder / "probe")]
    if subprocess.run(command, capture_output=True, timeout=120).returncode != 0:
        pytest.skip("g++ cannot link AddressSanitizer")
    started = run(folder / "probe")
    if started.returncode != 0:
        pytest.skip(f"AddressSanitizer does not start here: {started.stderr.strip()[:200]}")
    compile_source(SOURCE, folder / "bounds", FLAGS)
    return folder / "bounds"


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)


def test_nothing_is_read_outside_of_the_rotary_table(program: Path) -> None:
    done = run(program)
    assert done.returncode == 0, done.stderr[:4000]
    assert done.stdout.split() == ["0/12", "0/144", "12/12", "48/144", "12/12", "12/12", "12/12", "144/144", "12/12"]


def test_a_read_outside_is_noticed(program: Path) -> None:
    """The negative control."""
    done = run(program, "outside")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
