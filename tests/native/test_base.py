"""Products with a base of few bits by each instruction set that has code of its own, and with sanitizers."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.native.compiler import Compiler
from edgekit.native.source_files import SOURCES
from tests.tools import lacking

DRIVER = Path(__file__).parent / "base_driver.cpp"
#: By name: flags, the processor's features that it needs, and how many lanes it is to have.
SETS = {
    "AVX-512 VNNI": (("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni"), ("avx512_vnni", "avx512bw"), 16),
    "AVX-VNNI": (("-mavx2", "-mavxvnni"), ("avx_vnni",), 8),
    "AVX2": (("-mavx2",), ("avx2",), 8),
    "AVX": (("-mavx",), ("avx",), 8),
    "baseline": ((), (), 4),
}


def drive(command: tuple[str, ...], folder: Path, flags: tuple[str, ...], rounds: int, *runner: str) -> str:
    program = folder / "driver"
    warnings = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-psabi")
    arguments = [*command, *warnings, *flags, f"-I{SOURCES}", str(DRIVER), "-o", str(program)]
    built = subprocess.run(arguments, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    done = subprocess.run([*runner, program, str(rounds)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instruction sets of x86")
@pytest.mark.parametrize("name", SETS)
def test_each_instruction_set(name: str, compiler: Compiler, tmp_path: Path) -> None:
    flags, needed, lanes = SETS[name]
    features = set(Path("/proc/cpuinfo").read_text().split())
    if missing := [each for each in needed if each not in features]:
        pytest.skip(f"this processor lacks {', '.join(missing)}")
    wide = ("-mfma", "-mf16c") if "-mavx2" in flags or "-mavx512f" in flags else ()
    said = drive(compiler.command, tmp_path, ("-O3", *flags, *wide), 120)
    assert f"{lanes} lanes, products agree" in said


@pytest.mark.parametrize("march", ["armv8-a", "armv8.2-a+dotprod"])
def test_aarch64(march: str, tmp_path: Path) -> None:
    """Another architecture: cross-compiled and run by an emulator."""
    cross = shutil.which("aarch64-linux-gnu-g++") or shutil.which("aarch64-linux-gnu-g++-12")
    emulator = shutil.which("qemu-aarch64-static")
    if cross is None or emulator is None:
        lacking(
            "aarch64-linux-gnu-g++ or qemu-aarch64-static is not installed (g++-12-aarch64-linux-gnu qemu-user-static)"
        )
    said = drive((cross,), tmp_path, ("-O2", "-static", f"-march={march}"), 20, emulator)
    assert "4 lanes, products agree" in said


@pytest.mark.slow
@pytest.mark.parametrize("target", [(), ("-march=native",)], ids=["baseline", "native"])
def test_sanitized(compiler: Compiler, tmp_path: Path, target: tuple[str, ...]) -> None:
    """No access out of bounds and no undefined behaviour."""
    flags = ("-O1", "-g", "-fno-sanitize-recover=all", "-fsanitize=address,undefined", *target)
    assert "products agree" in drive(compiler.command, tmp_path, flags, 40)
