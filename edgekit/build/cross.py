"""Compiling the plugin library for another machine: aarch64 (Jetson, DGX Spark) on x86-64."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from edgekit.build.plugin_library import Toolchain
from edgekit.errors import BuildError
from edgekit.files import cache_dir, sha256_of

#: g++ for aarch64, the oldest first: what it links, JetPack 6 (glibc 2.35, libstdc++ of GCC 12) must have.
COMPILERS = ("aarch64-linux-gnu-g++-12", "aarch64-linux-gnu-g++-11", "aarch64-linux-gnu-g++")
#: The CUDA runtime for aarch64, of which libcudart_static.a is linked in; found on the package index.
CUDA_RUNTIME = "nvidia-cuda-runtime==13.0.88"
CUDA_RUNTIME_SHA256 = "8ba16a33998ee3ee2bf11c8f13e36e3ff86a1d6ad165ffeee863d6eabd0b5f67"
#: e_machine of an ELF header: EM_X86_64 (62), EM_AARCH64 (183).
_ELF_MACHINES = {b"\x3e\x00": "x86_64", b"\xb7\x00": "aarch64"}
_PLATFORM = ("--only-binary=:all:", "--platform", "manylinux2014_aarch64")


def toolchain_for(architecture: str) -> Toolchain:
    """What compiles the plugin library for a host architecture ("aarch64", "x86_64") on this machine.

    Raises:
        BuildError: a tool is missing, or the CUDA runtime for it cannot be had.
    """
    tools = Toolchain.found()
    if architecture == platform.machine():
        return tools
    if architecture != "aarch64":
        raise BuildError(
            "the plugin library can be compiled for this machine's architecture or for aarch64",
            f"this is {platform.machine()}, {architecture} was asked for",
            f"make the kit on a machine of {architecture}",
        )
    return Toolchain(tools.nvcc, tools.tensorrt_include, _compiler(), _cuda_headers(tools.nvcc), _cuda_runtime())


def library_architecture(library: Path) -> str | None:
    """The processor that a shared library is for, by its ELF header; None where it is none, or for another."""
    with library.open("rb") as file:
        head = file.read(20)
    shared_64_bit = head[:6] == b"\x7fELF\x02\x01" and head[16:18] == b"\x03\x00"
    return _ELF_MACHINES.get(head[18:20]) if shared_64_bit else None


def _compiler() -> str:
    for name in COMPILERS:
        if shutil.which(name):
            return name
    raise BuildError(
        "compiling the plugin library for an aarch64 device needs a compiler for that",
        f"none of {', '.join(COMPILERS)} is on the path",
        "apt install g++-12-aarch64-linux-gnu",
    )


def _cuda_headers(nvcc: Path) -> Path:
    """Where nvcc has its headers for this machine; they are the same for all."""
    command = [str(nvcc), "-dryrun", "-x", "cu", os.devnull]
    plan = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    found = re.search(r'INCLUDES="-I([^"]+)"', plan)
    if found is None:
        raise BuildError("nvcc must say where CUDA's headers are", f"{' '.join(command)} does not name them")
    return Path(found.group(1))


def _cuda_runtime() -> Path:
    """The directory of libcudart_static.a for aarch64: CUDA's own cross package, the cache, or the package index."""
    for place in ("targets/aarch64-linux/lib", "targets/sbsa-linux/lib"):
        if (folder := Path("/usr/local/cuda") / place).joinpath("libcudart_static.a").is_file():
            return folder
    folder = cache_dir() / "cuda-runtime-aarch64" / CUDA_RUNTIME_SHA256[:16]
    library = folder / "nvidia" / "cu13" / "lib"
    if not library.is_dir():
        partial = folder.with_name(f".{folder.name}-{os.getpid()}")
        try:
            shutil.unpack_archive(_fetched(partial), partial, "zip")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return library


def _fetched(folder: Path) -> Path:
    """The wheel, by pip; only these bytes are accepted."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{CUDA_RUNTIME} --hash=sha256:{CUDA_RUNTIME_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--dest", str(folder), *_PLATFORM, "-r", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode != 0 or wheel is None or sha256_of(wheel) != CUDA_RUNTIME_SHA256:
        raise BuildError(
            "compiling for an aarch64 device needs the CUDA runtime for that",
            f"{CUDA_RUNTIME} cannot be fetched: {(done.stderr.strip().splitlines() or ['pip gave no reason'])[-1]}",
            "allow the download, or install CUDA's cross packages (apt install cuda-cudart-cross-aarch64-13-0)",
        )
    return wheel
