"""A kit of a factorised model for a Jetson: its plugin library is compiled here for aarch64 and loads there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.build.cross import COMPILERS, toolchain_for
from edgekit.bundle import Bundle
from edgekit.errors import BuildError
from edgekit.kit.document import verify_kit
from edgekit.kit.make import make_kit
from tests.build.conftest import nvcc, tensorrt_include  # noqa: F401 — fixtures
from tests.build.test_aarch64 import COMPILER, EMULATOR, SYSROOT
from tests.kit.conftest import request
from tests.tools import lacking


@pytest.fixture
def tools(tensorrt_include: Path, nvcc: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for tool, package in ((COMPILER, "g++-12-aarch64-linux-gnu"), (EMULATOR, "qemu-user-static")):
        if shutil.which(tool) is None:
            lacking(f"{tool} is not installed (apt install {package})")
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tensorrt_include))


@pytest.mark.usefixtures("tools")
def test_its_library_loads_on_the_jetson_s_processor(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    kit = make_kit(bundles["t6-jetpack6"], request(), tmp_path / "kit")
    assert verify_kit(kit.path).manifest.plugin_library
    library = kit.path / kit.manifest.plugin_library
    loader = tmp_path / "load_library"
    source = Path(__file__).parents[1] / "build" / "load_library.cpp"
    toolchain = toolchain_for("aarch64")
    headers = [f"-isystem{folder}" for folder in (toolchain.tensorrt_include, toolchain.cuda_include)]
    command = [COMPILER, "-std=c++17", "-Wno-deprecated-declarations", *headers, str(source), "-o", str(loader)]
    subprocess.run(command, check=True, capture_output=True)
    fields = ["scale=f:1", "value_scale=f:1", "factored_query=i:1", "contextual_key=i:1", "contextual_value=i:1"]
    done = subprocess.run(
        [EMULATOR, "-L", SYSROOT, str(loader), str(library), "TPAAttention", *fields, "in_place=i:1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    creators = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("creator")}
    assert {use.name for use in bundles["t6-jetpack6"].manifest.operators} <= creators
    read = subprocess.run(["readelf", "-h", str(library)], check=True, capture_output=True, text=True).stdout
    assert re.search(r"Machine:\s+AArch64", read)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvcc").write_text("#!/bin/sh\n")
    (tmp_path / "nvcc").chmod(0o755)
    (tmp_path / "NvInferRuntime.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    monkeypatch.setattr("edgekit.build.cross.platform.machine", lambda: "x86_64")
    with pytest.raises(BuildError) as caught:
        toolchain_for("aarch64")
    assert all(name in caught.value.fact for name in COMPILERS)
    assert "apt install g++-12-aarch64-linux-gnu" in caught.value.next_step
    with pytest.raises(BuildError, match="or for aarch64"):
        toolchain_for("riscv64")
