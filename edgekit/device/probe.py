"""What this machine is, which known device it is, and where it deviates from that device's profile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.device import host
from edgekit.device.jetson import Jetson, jetson
from edgekit.device.nvidia_smi import COMMAND, ListedGpu, listed_gpus
from edgekit.device.profile import DEVICES, DeviceProfile, PowerMode, device_names, device_profile

#: Drivers show less memory than is built in (ECC, carve-outs), and never more; L4 with ECC shows 94 %.
_LEAST_MEMORY_SHOWN = 0.85
#: Two clocks or limits are the same within this: 1300 MHz of a data sheet is 1300.5 MHz on the device.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class ProbedDevice:
    """An accelerator of this machine, or its CPU where it has none.

    Attributes:
        kind: "jetson", "gpu" or "cpu"; name: as the machine gives it.
        facts: what was read, label to text, in the order to show.
        profile: the known device that it is; None where none is known.
        mode: its power mode's entry in the profile, where that is known.
        deviations: where it differs from the profile, a sentence each.
    """

    kind: str
    name: str
    facts: dict[str, str]
    profile: DeviceProfile | None
    mode: PowerMode | None
    deviations: tuple[str, ...]


def probe(root: Path = Path("/"), folder: Path = DEVICES) -> list[ProbedDevice]:
    """The accelerators of this machine, or its CPU; reads, changes nothing.

    Args:
        root: where etc, proc, sys and var are.
        folder: the profiles.
    """
    memory = host.memory(root / "proc/meminfo", root / "sys/fs/cgroup")
    profiles = [device_profile(name, folder) for name in device_names(folder)]
    board = jetson(root, host.output(["nvpmodel", "-q"]))
    if board is not None:
        return [_from_jetson(board, memory, profiles)]
    gpus = listed_gpus(host.output(list(COMMAND)) or "")
    if gpus:
        return [_from_gpu(gpu, memory, profiles) for gpu in gpus]
    return [_from_cpu(memory)]


def _from_jetson(board: Jetson, memory: host.Memory | None, profiles: list[DeviceProfile]) -> ProbedDevice:
    profile = next(
        (each for number in board.modules for each in profiles if number in each.reported_names),
        None,
    )
    mode = None
    facts = {
        "model": board.model or "not in the device tree",
        "module": ", ".join(board.modules) or "not in the device tree",
        "Jetson Linux": board.linux or "no release in /etc/nv_tegra_release",
        "JetPack": board.jetpack or "unknown for this Jetson Linux",
        "power mode": board.power_mode or "not readable: run it as root, or see `sudo nvpmodel -q`",
        "GPU clock limit": "not readable" if board.gpu_clock_limit_hz is None else _mhz(board.gpu_clock_limit_hz),
    } | _memory_fact(memory)
    deviations: list[str] = []
    if profile is not None:
        mode = next((each for each in profile.power_modes if each.name == board.power_mode), None)
        deviations += _memory_deviations(profile, memory.total_bytes if memory else None)
        deviations += _mode_deviations(profile, mode, board)
        if board.jetpack and not any(_same_release(board.jetpack, each.name) for each in profile.software):
            known = ", ".join(each.name for each in profile.software)
            deviations.append(f"JetPack {board.jetpack} is not one that the profile knows ({known})")
    return ProbedDevice("jetson", board.model or "Jetson", facts, profile, mode, tuple(deviations))


def _mode_deviations(profile: DeviceProfile, mode: PowerMode | None, board: Jetson) -> list[str]:
    if not board.power_mode:
        return []
    if mode is None:
        known = ", ".join(each.name for each in profile.power_modes)
        return [f"power mode {board.power_mode} is not one that the profile knows ({known})"]
    found = []
    clock, bandwidth, powered = mode.gpu_clock_hz, mode.memory_bandwidth_bytes_per_s, mode.streaming_multiprocessors
    if _less(clock, profile.gpu_clock_hz):
        found.append(f"power mode {mode.name} limits the GPU to {_mhz(clock)} of {_mhz(profile.gpu_clock_hz)}")
    most = profile.memory_bandwidth_bytes_per_s
    if _less(bandwidth, most):
        found.append(f"power mode {mode.name} limits the memory to {_gb_per_s(bandwidth)} of {_gb_per_s(most)}")
    if _less(powered, profile.streaming_multiprocessors):
        found.append(f"power mode {mode.name} powers {powered} of {profile.streaming_multiprocessors} SMs")
    if _less(board.gpu_clock_limit_hz, clock):
        found.append(
            f"the GPU is limited to {_mhz(board.gpu_clock_limit_hz)}; power mode {mode.name} allows {_mhz(clock)}"
        )
    return found


def _from_gpu(gpu: ListedGpu, memory: host.Memory | None, profiles: list[DeviceProfile]) -> ProbedDevice:
    profile = next((each for each in profiles if gpu.name in each.reported_names), None)
    shared = profile is not None and profile.memory_is_shared
    shown = gpu.memory_bytes if gpu.memory_bytes is not None or not shared or memory is None else memory.total_bytes
    facts = {
        "compute capability": gpu.compute_capability or "not told by this driver",
        "memory": "not told by the driver" if shown is None else _gib(shown),
        "driver": gpu.driver or "not told",
        "power limit": "not told" if gpu.power_limit_w is None else f"{gpu.power_limit_w:.0f} W",
        "GPU clock limit": "not told" if gpu.clock_limit_hz is None else _mhz(gpu.clock_limit_hz),
    }
    deviations: list[str] = []
    mode = None
    if profile is not None:
        mode = profile.power_modes[0]
        deviations += _memory_deviations(profile, shown)
        capability = gpu.compute_capability
        if capability and capability != profile.compute_capability:
            deviations.append(
                f"the driver gives compute capability {capability}, the profile {profile.compute_capability}"
            )
        if _less(gpu.power_limit_w, mode.watts):
            deviations.append(f"the power limit is {gpu.power_limit_w:.0f} W of {mode.watts:.0f} W")
    return ProbedDevice("gpu", gpu.name, facts, profile, mode, tuple(deviations))


def _from_cpu(memory: host.Memory | None) -> ProbedDevice:
    cpu = host.cpu()
    facts = {"architecture": cpu.architecture, "usable cores": str(cpu.usable_cores)} | _memory_fact(memory)
    return ProbedDevice("cpu", cpu.model, facts, None, None, ())


def _memory_deviations(profile: DeviceProfile, shown_bytes: int | None) -> list[str]:
    if shown_bytes is None or _LEAST_MEMORY_SHOWN <= shown_bytes / profile.memory_bytes <= 1:
        return []
    return [f"memory is {_gib(shown_bytes)}, the profile has {_gib(profile.memory_bytes)}"]


def _memory_fact(memory: host.Memory | None) -> dict[str, str]:
    if memory is None:
        return {"memory": "not readable"}
    return {"memory": f"{_gib(memory.total_bytes)}, {_gib(memory.available_bytes)} available"}


def _same_release(version: str, name: str) -> bool:
    """Whether "6.2.1" is the "JetPack 6.2" of a profile: patch releases keep CUDA and TensorRT."""
    return version.split(".")[:2] == name.rpartition(" ")[2].split(".")[:2]


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _mhz(hertz: float | None) -> str:
    return "unknown" if hertz is None else f"{hertz / 1e6:,.0f} MHz"


def _gb_per_s(rate: float | None) -> str:
    return "unknown" if rate is None else f"{rate / 1e9:.1f} GB/s"


def _less(value: float | None, most: float | None) -> bool:
    """Whether both are known and the first is smaller by more than the tolerance."""
    return value is not None and most is not None and value < most * (1 - _TOLERANCE)
