"""The plugin library compiled for Jetson (Orin, Thor) on another machine, loaded under emulation."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.build.plugin_library import Toolchain, plugin_library
from edgekit.files import cache_dir
from tests.build.conftest import fetch
from tests.build.graphs import ATTRIBUTES
from tests.tools import lacking

COMPILER = "aarch64-linux-gnu-g++-12"
EMULATOR = "qemu-aarch64-static"
SYSROOT = "/usr/aarch64-linux-gnu"
#: The CUDA runtime for aarch64, linked statically.
CUDA_RUNTIME = "nvidia-cuda-runtime==13.0.88"
CUDA_RUNTIME_SHA256 = "8ba16a33998ee3ee2bf11c8f13e36e3ff86a1d6ad165ffeee863d6eabd0b5f67"
PLATFORM = ("--only-binary=:all:", "--platform", "manylinux2014_aarch64")


@pytest.fixture(scope="module")
def toolchain(tensorrt_include: Path, nvcc: Path) -> Toolchain:
    for tool, package in ((COMPILER, "g++-12-aarch64-linux-gnu"), (EMULATOR, "qemu-user-static")):
        if shutil.which(tool) is None:
            lacking(f"{tool} is not installed (apt install {package})")
    folder = cache_dir() / "cuda-runtime-aarch64" / CUDA_RUNTIME_SHA256[:16]
    library = folder / "nvidia" / "cu13" / "lib"
    if not library.is_dir():
        wheel = fetch(CUDA_RUNTIME, CUDA_RUNTIME_SHA256, folder, *PLATFORM)
        shutil.unpack_archive(wheel, folder, "zip")
    return Toolchain(nvcc, tensorrt_include, COMPILER, cuda_headers(nvcc), library)


def cuda_headers(nvcc: Path) -> Path:
    """Where nvcc has its headers for this machine; they are the same for all."""
    plan = subprocess.run([str(nvcc), "-dryrun", "-x", "cu", "/dev/null"], capture_output=True, text=True, check=False)
    found = re.search(r'INCLUDES="-I([^"]+)"', plan.stderr)
    assert found is not None, plan.stderr
    return Path(found.group(1))


def test_the_library_for_jetson_loads_and_names_its_creators(toolchain: Toolchain, tmp_path: Path) -> None:
    library = plugin_library(("87", "110"), toolchain)
    loader = tmp_path / "load_library"
    source = Path(__file__).with_name("load_library.cpp")
    assert toolchain.cuda_include is not None
    headers = [f"-isystem{folder}" for folder in (toolchain.tensorrt_include, toolchain.cuda_include)]
    command = [COMPILER, "-std=c++17", "-Wno-deprecated-declarations", *headers]
    subprocess.run([*command, str(source), "-o", str(loader)], check=True, capture_output=True)
    fields = ["scale=f:1", "value_scale=f:1", "factored_query=i:1", "contextual_key=i:1", "contextual_value=i:1"]
    done = subprocess.run(
        [EMULATOR, "-L", SYSROOT, str(loader), str(library), "TPAAttention", *fields, "in_place=i:1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    creators = [line.split()[1:4] for line in done.stdout.splitlines() if line.startswith("creator")]
    assert creators == [[name, "1", "edgekit"] for name in sorted(ATTRIBUTES)]
    assert "aliases -1 6 7 8 9" in done.stdout


def test_the_library_for_jetson_runs_on_its_system(toolchain: Toolchain) -> None:
    """JetPack 6 is Ubuntu 22.04: glibc 2.35, and libstdc++ of GCC 12."""
    library = plugin_library(("87", "110"), toolchain)
    read = subprocess.run(["readelf", "-hVd", str(library)], check=True, capture_output=True, text=True).stdout
    assert "AArch64" in read
    assert highest(read, "GLIBC") <= (2, 34)
    assert highest(read, "GLIBCXX") <= (3, 4, 30)
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", read))
    assert needed <= {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "ld-linux-aarch64.so.1"}


def highest(text: str, name: str) -> tuple[int, ...]:
    return max(tuple(map(int, version.split("."))) for version in re.findall(rf"\b{name}_([0-9.]+)\b", text))
