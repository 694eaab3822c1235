"""Compiling edgekit's operators to a TensorRT plugin library, with nvcc.

The library links neither TensorRT nor a CUDA runtime of the machine, so it is compiled where TensorRT's headers are and
loaded by any TensorRT whose plugin interfaces they describe. Results are kept in the cache by their inputs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import BuildError
from edgekit.files import cache_dir

#: Compute capabilities the library is made for by default: Orin, Hopper, Thor, Blackwell RTX.
ARCHITECTURES = ("87", "90", "110", "120")
LIBRARY = "libedgekit_tensorrt.so"

_HOST = ("-std=c++17", "-O2", "-Xcompiler=-fPIC,-fvisibility=hidden", "--cudart=static")


@dataclass(frozen=True)
class Toolchain:
    """What compiles the library.

    Attributes:
        nvcc: the CUDA compiler.
        tensorrt_include: directory of NvInferRuntime.h, TensorRT 10.3 or newer.
        host_compiler: for another host architecture, its g++ (`nvcc -ccbin`); "" for nvcc's own choice.
        cuda_include, cuda_library: for another host architecture, CUDA's headers and the directory of
            libcudart_static.a, where nvcc has none of its own for it.
    """

    nvcc: Path
    tensorrt_include: Path
    host_compiler: str = ""
    cuda_include: Path | None = None
    cuda_library: Path | None = None

    @classmethod
    def found(cls) -> Toolchain:
        """The machine's own: nvcc on the path or in /usr/local/cuda, headers by TENSORRT_INCLUDE_DIR or installed.

        Raises:
            BuildError: one of them is missing.
        """
        return cls(_nvcc(), _tensorrt_include())

    @property
    def arguments(self) -> tuple[str, ...]:
        """nvcc's arguments that follow from it, for compiling and linking."""
        host = (f"-ccbin={self.host_compiler}",) if self.host_compiler else ()
        # A library directory given here is searched before nvcc's own.
        link = (f"-L{self.cuda_library}",) if self.cuda_library else ()
        headers = [folder for folder in (self.tensorrt_include, self.cuda_include) if folder]
        return (*_HOST, *host, *link, *(f"-isystem={folder}" for folder in headers))


def plugin_library(architectures: Sequence[str] = ARCHITECTURES, toolchain: Toolchain | None = None) -> Path:
    """The plugin library for these architectures, compiled unless the cache has it; minutes at the first time.

    Args:
        architectures: compute capabilities without the dot ("87"). The last one's PTX is embedded too, so that newer
            GPUs can run it.

    Raises:
        BuildError: the tools are missing, or the sources do not compile.
    """
    tools = toolchain or Toolchain.found()
    sources = [source.resolve() for source in _sources()]
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in architectures]
    codes.append(f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")
    tools_used = _fingerprint_of_tools(tools)
    folder = cache_dir() / "plugins"
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=min(len(sources), os.cpu_count() or 1)) as pool:
        objects = list(pool.map(lambda source: _object(source, folder, tools_used, tools, codes), sources))
    key = hashlib.sha256("\n".join(path.name for path in objects).encode()).hexdigest()[:16]
    library = folder / key / LIBRARY
    if not library.is_file():
        library.parent.mkdir(exist_ok=True)
        _run(tools, ["-shared", *codes, *map(str, objects)], library)
    return library


def _sources() -> list[Path]:
    package = Path(__file__).parents[1] / "native" / "sources"
    root = package if package.is_dir() else Path(__file__).parents[2] / "plugins"
    entry = root / "tensorrt_library.cpp"
    if not entry.is_file():
        raise BuildError("the plugin library is compiled from edgekit's sources", f"there is no {entry}")
    found = [*root.glob("*/plugin.cpp"), *root.glob("*/launch*.cpp"), *root.glob("*/kernel*.cu")]
    return [entry, *sorted(found)]


def _object(source: Path, folder: Path, tools_used: str, tools: Toolchain, codes: Sequence[str]) -> Path:
    """The object file of one source, from the cache if nothing it depends on has changed."""
    code = codes if source.suffix == ".cu" else ()
    texts = [part.name + part.read_text(encoding="utf-8") for part in sorted(_included(source, set()))]
    key = hashlib.sha256("\n".join([tools_used, *code, *texts]).encode()).hexdigest()[:16]
    path = folder / f"{source.parent.name}_{source.stem}_{key}.o"
    if not path.is_file():
        _run(tools, ["-c", *code, str(source)], path)
    return path


def _included(source: Path, seen: set[Path]) -> set[Path]:
    """The file and what it includes of edgekit's own, directly or not."""
    if source in seen or not source.is_file():
        return seen
    seen.add(source)
    for name in re.findall(r'^#include "([^"]+)"', source.read_text(encoding="utf-8"), re.MULTILINE):
        _included((source.parent / name).resolve(), seen)
    return seen


def _fingerprint_of_tools(tools: Toolchain) -> str:
    version = subprocess.run([str(tools.nvcc), "--version"], capture_output=True, text=True, check=False).stdout
    headers = (tools.tensorrt_include / "NvInferVersion.h").read_text(encoding="utf-8")
    return "\n".join([*tools.arguments, version, headers])


def _run(tools: Toolchain, arguments: Sequence[str], result: Path) -> None:
    """Compile or link into `result`, which appears as a whole."""
    partial = result.with_name(f".{os.getpid()}-{result.name}")
    command = [str(tools.nvcc), *tools.arguments, *arguments, "-o", str(partial)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        raise BuildError(
            "the plugin library must compile",
            errors[0] if errors else f"nvcc ended with {done.returncode}",
            "run it by hand to see all of its messages: " + " ".join(command),
        )
    os.replace(partial, result)


def _nvcc() -> Path:
    found = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(found).is_file():
        raise BuildError(
            "compiling the plugin library needs nvcc",
            "it is neither on the path nor in /usr/local/cuda/bin",
            "install the CUDA toolkit (on a Jetson: apt install cuda-toolkit)",
        )
    return Path(found)


def _tensorrt_include() -> Path:
    named = os.environ.get("TENSORRT_INCLUDE_DIR")
    usual = [f"/usr/include/{machine}-linux-gnu" for machine in ("aarch64", "x86_64")]
    for folder in [named] if named else [*usual, "/usr/include", "/usr/local/tensorrt/include"]:
        if (Path(folder) / "NvInferRuntime.h").is_file():
            return Path(folder)
    raise BuildError(
        "compiling the plugin library needs TensorRT's headers",
        f"TENSORRT_INCLUDE_DIR is {named}, which has no NvInferRuntime.h" if named else "NvInferRuntime.h is not found",
        "set TENSORRT_INCLUDE_DIR to the SDK's include directory (on a Jetson: apt install libnvinfer-headers-dev)",
    )
