"""What a named device is: one `devices/<name>.toml` each, with units in the field names and a source per fact.

A fact without a public source is left out of the file and is None here; whoever needs it says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from edgekit.errors import DeviceError

#: In the package a link to the repository's devices/.
DEVICES = Path(__file__).parent / "known"

KINDS = ("jetson", "datacenter", "desktop", "rtx")
BACKENDS = ("tensorrt", "tensorrt-rtx")
#: As `uname -m` prints them.
CPU_ARCHITECTURES = ("aarch64", "x86_64")
#: Types that weights of an engine can have: `dtypes` holds some of them.
DTYPES = ("fp32", "fp16", "bf16", "fp8", "int8", "int4", "fp4")
#: Types that `peak_ops_per_s` may tell the rate of. int4 is missing: its weights are widened and multiplied as fp16.
PEAKS = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "fp4")


@dataclass(frozen=True)
class Software:
    """A release that runs on the device: "JetPack 6.2" with its CUDA and TensorRT versions.

    Attributes:
        tensorrt: the version of `backend`, which is one of BACKENDS.
    """

    name: str
    cuda: str
    tensorrt: str
    backend: str = "tensorrt"


@dataclass(frozen=True)
class PowerMode:
    """A power mode: its limit and, where it changes them, what it leaves of the clocks, the bandwidth and the SMs.

    Attributes:
        name: as `nvpmodel -q` prints it ("15W", "MAXN_SUPER"); of a card, "default".
        watts: the limit; None where the mode has none.
        streaming_multiprocessors: those that are powered; None where all are.
    """

    name: str
    watts: float | None = None
    gpu_clock_hz: float | None = None
    memory_bandwidth_bytes_per_s: float | None = None
    streaming_multiprocessors: int | None = None


@dataclass(frozen=True)
class Storage:
    """A medium that models are read from, and the most its interface carries."""

    medium: str
    bandwidth_bytes_per_s: float


@dataclass(frozen=True)
class DeviceProfile:
    """A device.

    Attributes:
        name: the file's stem ("jetson-orin-nano-8gb"); title: for people.
        kind: one of KINDS; backends: of BACKENDS, what builds engines for it, the default first.
        compute_capability: without the dot ("87").
        memory_bytes: of the GPU; with `memory_is_shared`, CPU and system use it too.
        memory_reserved_bytes: what the system keeps of it before a program starts.
        peak_ops_per_s: dense (no sparsity) multiply-add operations counted as two, by dtype ("fp16", "int8", ...), on
            tensor cores except for fp32. Floating-point products of less than 32 bits are accumulated in fp32.
        dtypes: of weights that engines for it can have.
        power_modes: the first is the one it ships in; `peak_ops_per_s` and the bandwidth are those of the largest.
        software: newest last.
        sources: for each field of the file, where it was read.
        gpu_clock_hz: at which `peak_ops_per_s` holds.
        memory_bus_bits, memory_transfers_per_s: width of the interface, and transfers per second and pin.
        cpu_architecture: of the processor beside the GPU, one of CPU_ARCHITECTURES; None for a card, which is put into
            machines of either kind.
        shared_memory_per_block_bytes: the most that one thread block can be given (opt-in).
        storage: what models can be read from.
        reported_names: by which the machine itself calls it: the names of the driver (NVML, nvidia-smi) or the part
            numbers of the module in the device tree ("p3767-0005").
    """

    name: str
    title: str
    kind: str
    backends: tuple[str, ...]
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
    gpu_clock_hz: float | None = None
    memory_bus_bits: int | None = None
    memory_transfers_per_s: float | None = None
    cpu_architecture: str | None = None
    storage: tuple[Storage, ...] = ()
    reported_names: tuple[str, ...] = ()

    @property
    def backend(self) -> str:
        """What builds engines for it unless another is asked for."""
        return self.backends[0]

    @property
    def usable_memory_bytes(self) -> int:
        """What a program may use."""
        return self.memory_bytes - (self.memory_reserved_bytes or 0)

    @property
    def storage_bandwidth_bytes_per_s(self) -> float | None:
        """That of its fastest storage interface; None where it is not known."""
        return max((medium.bandwidth_bytes_per_s for medium in self.storage), default=None)


def device_names(folder: Path = DEVICES) -> list[str]:
    """Names of all known devices, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def device_profile(name: str, folder: Path = DEVICES) -> DeviceProfile:
    """The device of that name.

    Raises:
        DeviceError: it is unknown (the nearest names are given), or its file is malformed (the field is named).
    """
    known = device_names(folder)
    if name not in known:
        near = get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        raise DeviceError(
            "a device is one of those that edgekit has a profile of",
            f"{name!r} is not",
            f"did you mean {', '.join(near)}?" if near else "edgekit devices list shows them all",
        )
    return read_profile(folder / f"{name}.toml")


@cache
def read_profile(path: Path) -> DeviceProfile:
    """A profile from its file. Raises DeviceError naming the field that is missing, unknown or mistyped."""
    from edgekit.device.profile_file import profile_from_file

    return profile_from_file(path)
