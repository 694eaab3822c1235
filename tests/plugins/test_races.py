"""The CUDA kernels on one host thread per CUDA thread, watched by ThreadSanitizer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.plugins.host_library import compile_source, missing_compiler

SOURCE = Path(__file__).with_name("races.cpp")
SANITIZED = ("-g", "-DEDGEKIT_CUDA_ON_HOST_THREADS", "-fsanitize=thread")


def run(program: Path) -> subprocess.CompletedProcess[str]:
    options = os.environ | {"TSAN_OPTIONS": "exitcode=66 halt_on_error=0"}
    return subprocess.run([str(program)], capture_output=True, text=True, timeout=300, env=options)


@pytest.fixture(scope="module")
def sanitizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to compile in, where ThreadSanitizer works."""
    if reason := missing_compiler():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("races")
    probe = folder / "probe.cpp"
    probe.write_text("#include <thread>\nint main() { std::thread([] {}).join(); }\n")
    built = subprocess.run(
        ["g++", "-std=c++20", "-fsanitize=thread", str(probe), "-o", str(folder / "probe")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if built.returncode != 0:
        pytest.skip("g++ cannot link ThreadSanitizer")
    started = run(folder / "probe")
    if started.returncode != 0:
        pytest.skip(f"ThreadSanitizer does not start here: {started.stderr.strip()[:200]}")
    return folder


def test_no_race_and_the_numbers_of_the_quick_scheduler(sanitizer: Path) -> None:
    compile_source(SOURCE, sanitizer / "threads", SANITIZED)
    compile_source(SOURCE, sanitizer / "fibers", ())
    watched = run(sanitizer / "threads")
    assert watched.returncode == 0, watched.stderr[:4000]
    assert watched.stdout == run(sanitizer / "fibers").stdout
    assert "nan" not in watched.stdout


def test_a_missing_sync_is_noticed(sanitizer: Path) -> None:
    """The negative control: without it, the test above would also pass with a sanitizer that sees nothing."""
    compile_source(SOURCE, sanitizer / "seeded", (*SANITIZED, "-DEDGEKIT_SEED_MISSING_SYNC"))
    done = run(sanitizer / "seeded")
    assert done.returncode == 66
    for kernel in ("kernel_decode.cuh", "kernel_prefill.cuh"):
        assert any(
            "SUMMARY: ThreadSanitizer: data race" in line and kernel in line for line in done.stderr.splitlines()
        )
