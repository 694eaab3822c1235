"""What this machine is: processor, memory, disk, compilers, graphics processors. Linux; reads, changes nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: CPU features that change the speed of inference: /proc/cpuinfo flag -> what it speeds up.
#: x86 names are the kernel's (arch/x86/include/asm/cpufeatures.h), Arm names its hwcaps.
CPU_FEATURES = {
    "x86_64": {
        "avx2": "8-wide fp32 arithmetic",
        "fma": "fused multiply-add",
        "avx512f": "16-wide fp32 arithmetic",
        "avx512_vnni": "int8 and int4 matrix products",
        "avx_vnni": "int8 and int4 matrix products, 8-wide",
        "avx512_bf16": "bf16 matrix products",
        "amx_int8": "int8 matrix tiles",
    },
    "aarch64": {
        "asimd": "4-wide fp32 arithmetic (NEON)",
        "asimdhp": "fp16 arithmetic",
        "asimddp": "int8 and int4 matrix products (dot product)",
        "i8mm": "int8 matrix products",
        "bf16": "bf16 matrix products",
        "sve": "scalable vectors",
    },
}


@dataclass(frozen=True)
class Cpu:
    """The processor: usable cores are those this process may run on."""

    architecture: str
    model: str
    usable_cores: int
    features: frozenset[str]

    @property
    def multiplies_bfloat16(self) -> bool:
        """Whether it has instructions for products of bfloat16; elsewhere these are slower than those of float32."""
        return bool(self.features & {"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True)
class Memory:
    """Memory in bytes, capped by the control group's limit where there is one."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class Gpu:
    """A graphics processor as its driver describes it."""

    name: str
    detail: str


def cpu(cpuinfo: Path = Path("/proc/cpuinfo"), architecture: str | None = None) -> Cpu:
    """The processor of this machine, from /proc/cpuinfo."""
    text = _read(cpuinfo)
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    model = re.search(r"^(?:model name|Model|Hardware)\s*:(.*)$", text, re.MULTILINE)
    return Cpu(
        architecture=architecture or platform.machine(),
        model=model[1].strip() if model else "unknown",
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        features=frozenset(flags[1].split()) if flags else frozenset(),
    )


def memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> Memory | None:
    """Memory of this machine, or None where it cannot be told."""
    kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read(meminfo), re.MULTILINE))
    if "MemTotal" not in kilobytes or "MemAvailable" not in kilobytes:
        return None
    total, available = (int(kilobytes[key]) * 1024 for key in ("MemTotal", "MemAvailable"))
    limit, used = _read(cgroup / "memory.max").strip(), _read(cgroup / "memory.current").strip()
    if limit.isdigit() and used.isdigit():  # "max" where there is no limit
        total, available = min(total, int(limit)), min(available, max(0, int(limit) - int(used)))
    return Memory(total, available)


def disk_free_bytes(path: Path) -> int:
    """Free bytes on the disk that holds `path`, or would hold it."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def compiler(name: str) -> str | None:
    """The version line of a compiler on the PATH, or None."""
    printed = output([name, "--version"])
    if printed is None:
        return None
    lines = [line for line in printed.splitlines() if line.strip()]
    release = next((line for line in lines if "release" in line), lines[0] if lines else "")
    return release.strip()


def gpus(tegra_release: Path = Path("/etc/nv_tegra_release")) -> list[Gpu]:
    """NVIDIA graphics processors: those of nvidia-smi, and a Jetson's by its L4T release file."""
    found = []
    listing = output(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
    for line in (listing or "").splitlines():
        name, _, rest = line.partition(",")
        if rest:
            found.append(Gpu(name.strip(), "driver, memory: " + rest.strip()))
    release = _read(tegra_release).strip()
    if release:
        found.append(Gpu("Jetson", release.splitlines()[0].lstrip("# ")))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # the file exists on some machines only
        return ""


def output(command: list[str]) -> str | None:
    """Standard output of a command, or None when it is not there, fails, or takes more than 20 s."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
