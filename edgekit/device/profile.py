"""What a named device is: one `devices/<name>.toml` each, with units in the field names and a source per fact.

A fact without a public source is left out of the file and is None here; whoever needs it says so.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from edgekit.errors import DeviceError

if sys.version_info >= (3, 11):
    pass
else:
    pass

#: In the package a link to the repository's devices/.
DEVICES = Path(__file__).parent / "known"

KINDS = ("jetson", "datacenter", "rtx")
BACKENDS = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Software:
    """A release that runs on the device: "JetPack 6.2" with its CUDA and TensorRT versions."""

    name: str
    cuda: str
    tensorrt: str


@dataclass(frozen=True)
class PowerMode:
    """A power mode: its limit and, where it changes them, the clocks' consequences."""

    name: str
    watts: float | None = None
    gpu_clock_hz: float | None = None
    memory_bandwidth_bytes_per_s: float | None = None


@dataclass(frozen=True)
class DeviceProfile:
    """A device.

    Attributes:
        name: the file's stem ("jetson-orin-nano-8gb"); title: for people.
        kind: one of KINDS; backend: one of BACKENDS, what builds engines for it.
        compute_capability: without the dot ("87").
        memory_bytes: of the GPU; with `memory_is_shared`, CPU and system use it too.
        memory_reserved_bytes: what the system keeps of it before a program starts.
        peak_ops_per_s: dense (no sparsity) multiply-add operations counted as two, by dtype ("fp16", "int8", ...).
        dtypes: of weights that engines for it can have.
        power_modes: the first is the one it ships in; `peak_ops_per_s` and the bandwidth are those of the largest.
        software: newest last.
        sources: for each field of the file, where it was read.
    """

    name: str
    title: str
    kind: str
    backend: str
    compute_capability: str
    streaming_multiprocessors: int
    memory_bytes: int
    memory_is_shared: bool
    memory_bandwidth_bytes_per_s: float
    dtypes: tuple[str, ...]
    peak_ops_per_s: dict[str, float]
    power_modes: tuple[PowerMode, ...]
    software: tuple[Software, ...]
    sources: dict[str, str]
    memory_reserved_bytes: int | None = None
    l2_cache_bytes: int | None = None
    shared_memory_per_block_bytes: int | None = None
    storage_bandwidth_bytes_per_s: float | None = None

    @property
    def usable_memory_bytes(self) -> int:
        """What a program may use."""
        return self.memory_bytes - (self.memory_reserved_bytes or 0)


def device_names() -> list[str]:
    """Names of all known devices, sorted."""
    return sorted(path.stem for path in DEVICES.glob("*.toml"))


def device_profile(name: str, folder: Path = DEVICES) -> DeviceProfile:
    """The device of that name.

    Raises:
        DeviceError: it is unknown (the nearest names are given), or its file is malformed (the field is named).
    """
    path = folder / f"{name}.toml"
    if not path.is_file() or path.name != f"{name}.toml":
        known = sorted(file.stem for file in folder.glob("*.toml"))
        near = get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        raise DeviceError(
            "a device is one of those that edgekit has a profile of",
            f"{name!r} is not",
            f"did you mean {', '.join(near)}?" if near else "edgekit devices list shows them all",
        )
    return read_profile(path)


@cache
def read_profile(path: Path) -> DeviceProfile:
    """A profile from its file. Raises DeviceError naming the field that is missing, unknown or mistyped."""
    raise NotImplementedError
