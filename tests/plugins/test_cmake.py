"""plugins/CMakeLists.txt: configured here, and built in the slow test."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.plugins.host_library import PLUGINS
from tests.tools import no_nvcc, nvcc

pytestmark = [
    pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake"),
    pytest.mark.skipif(no_nvcc() is not None, reason=no_nvcc() or ""),
]


def configure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["cmake", "-S", str(PLUGINS), "-B", str(folder), *options]
    environment = os.environ | {"CUDACXX": str(nvcc())}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_without_tensorrt_it_says_that_it_builds_kernels_only(tmp_path: Path) -> None:
    done = configure(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "building the kernels (libedgekit_kernels.a), not the TensorRT plugins" in done.stdout
    flags = (tmp_path / "CMakeFiles" / "edgekit_kernels.dir" / "flags.make").read_text()
    for code in ("[sm_87]", "[sm_90]", "[sm_110]", "[compute_120,sm_120]"):
        assert f"code={code}" in flags
    assert "-fvisibility=hidden" in flags


def test_a_wrong_directory_of_headers_is_refused(tmp_path: Path) -> None:
    done = configure(tmp_path / "build", f"-DTENSORRT_INCLUDE_DIR={tmp_path}")
    assert done.returncode != 0
    assert "TENSORRT_INCLUDE_DIR must hold NvInferRuntime.h" in done.stderr


@pytest.mark.slow
def test_the_kernels_build_for_one_architecture(tmp_path: Path) -> None:
    assert configure(tmp_path, "-DCMAKE_CUDA_ARCHITECTURES=87-real").returncode == 0
    command = ["cmake", "--build", str(tmp_path), "--parallel", str(os.cpu_count() or 1)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "warning" not in (built.stdout + built.stderr).lower()
    assert (tmp_path / "libedgekit_kernels.a").exists()
