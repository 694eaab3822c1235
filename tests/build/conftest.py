"""TensorRT's headers, the plugin library and engines, each made once."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekit.build.plugin_library import Toolchain, plugin_library
from edgekit.build.profile import decoder_axes
from edgekit.files import cache_dir
from tests import tools
from tests.tools import lacking

#: Carries the headers of TensorRT 10.14.1 (Apache-2.0). Nothing of it is run.
HEADERS_PACKAGE = "kernel-lens==2.0.1"
HEADERS_SHA256 = "07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0"

AXES = decoder_axes(batch=2, new=16, context=48, in_place=True)


@pytest.fixture(scope="session")
def tensorrt_include() -> Path:
    """A directory with TensorRT's headers: that of TENSORRT_INCLUDE_DIR, or fetched once into the cache."""
    if "TENSORRT_INCLUDE_DIR" in os.environ:
        return Path(os.environ["TENSORRT_INCLUDE_DIR"])
    folder = cache_dir() / "tensorrt-headers" / HEADERS_SHA256[:16]
    include = folder / "kernel_lens" / "include" / "tensorrt"
    if not include.is_dir():
        partial = folder.with_name(f".{folder.name}-{os.getpid()}")
        fetched = fetch(HEADERS_PACKAGE, HEADERS_SHA256, partial)
        with zipfile.ZipFile(fetched) as wheel:
            wheel.extractall(partial)
        os.replace(partial, folder)
    return include


def fetch(package: str, sha256: str, folder: Path, *arguments: str) -> Path:
    """The wheel of a package, by pip, of which only these bytes are accepted."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{package} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--dest", str(folder), *arguments, "-r", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(folder)
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        assert "THESE PACKAGES DO NOT MATCH THE HASHES" not in done.stderr, reason
        lacking(f"{package} cannot be fetched: {reason}")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def nvcc() -> Path:
    found = tools.nvcc()
    if found is None:
        lacking(tools.no_nvcc() or "")
    return found


@pytest.fixture(scope="session")
def library(tensorrt_include: Path, nvcc: Path) -> Path:
    """The plugin library for this machine's host architecture and one GPU architecture."""
    return plugin_library(("89",), Toolchain(nvcc, tensorrt_include))


Build = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds an engine in another process; gives the fields of EngineBuild, or of BuildError."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("TensorRT-RTX is installed on x86-64 Linux only")
    if importlib.util.find_spec("tensorrt_rtx") is None:
        lacking("tensorrt-rtx-cu13 is not installed")

    def run(
        model: onnx.ModelProto | Path,
        libraries: list[Path] | None = None,
        expected: dict[str, int] | None = None,
        capabilities: tuple[str, ...] = ("89",),
        axes: dict[str, tuple[int, int, int]] | None = None,
        embed: bool = False,
    ) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("engine")
        path = model if isinstance(model, Path) else folder / "model.onnx"
        if not isinstance(model, Path):
            onnx.save(model, path)
        job = {
            "model": str(path),
            "destination": str(folder / "model.engine"),
            "axes": axes if axes is not None else {name: astuple(sizes) for name, sizes in AXES.items()},
            "libraries": [str(library) for library in libraries or []],
            "expected": expected,
            "capabilities": list(capabilities),
            "embed": embed,
        }
        command = [sys.executable, "-m", "tests.build.worker"]
        root = Path(__file__).parents[2]
        done = subprocess.run(
            command, input=json.dumps(job), capture_output=True, text=True, check=False, cwd=root, timeout=300
        )
        assert done.returncode == 0, f"TensorRT ended the process ({done.returncode}): {done.stderr[-2000:]}"
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer | {"stderr": done.stderr}

    return run
