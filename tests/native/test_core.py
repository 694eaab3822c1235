"""The kernels without ONNX Runtime: compiled for other instruction sets, and with sanitizers."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.native.compiler import Compiler
from edgekit.native.source_files import SOURCES
from tests.tools import lacking

DRIVER = Path(__file__).parent / "core_driver.cpp"
SANITIZED = ("-O1", "-g", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


def drive(compiler: Compiler, folder: Path, flags: tuple[str, ...], rounds: int, *runner: str) -> str:
    program = folder / "driver"
    command = [*compiler.command, "-std=c++17", "-Wall", "-Wextra", "-Werror", *flags, f"-I{SOURCES}"]
    built = subprocess.run([*command, str(DRIVER), "-o", str(program), "-pthread"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    done = subprocess.run([*runner, program, str(rounds), "1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def test_baseline_instruction_set(compiler: Compiler, tmp_path: Path) -> None:
    """16-byte vectors, no fused multiply-add, no conversion instructions: what any machine of this kind has."""
    assert "float16 conversion exact" in drive(compiler, tmp_path, ("-O2",), 60)


def test_aarch64(tmp_path: Path) -> None:
    """Another architecture: cross-compiled and run by an emulator."""
    cross = shutil.which("aarch64-linux-gnu-g++") or shutil.which("aarch64-linux-gnu-g++-12")
    emulator = shutil.which("qemu-aarch64-static")
    if cross is None or emulator is None:
        lacking(
            "aarch64-linux-gnu-g++ or qemu-aarch64-static is not installed (g++-12-aarch64-linux-gnu qemu-user-static)"
        )
    drive(Compiler((cross,), ""), tmp_path, ("-O2", "-static"), 20, emulator)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instruction sets of x86")
@pytest.mark.parametrize("flags", [("-mavx",), ("-mavx2", "-mfma", "-mf16c")], ids=" ".join)
def test_other_instruction_sets(compiler: Compiler, tmp_path: Path, flags: tuple[str, ...]) -> None:
    if flags[-1].removeprefix("-m") not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor lacks {flags[-1]}")
    drive(compiler, tmp_path, ("-O3", *flags), 200)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
@pytest.mark.parametrize("target", [(), ("-march=native",)], ids=["baseline", "native"])
def test_sanitized(compiler: Compiler, tmp_path: Path, sanitizer: str, target: tuple[str, ...]) -> None:
    """No access out of bounds, no undefined behaviour, no data race, on random sizes with buffers of exact size."""
    drive(compiler, tmp_path, (*SANITIZED, f"-fsanitize={sanitizer}", *target), 60)
