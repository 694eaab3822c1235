"""A device's profile as rows for people and as a document for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgekit.device.profile import DeviceProfile, PowerMode

HEADINGS = (
    "device",
    "kind",
    "builds with",
    "capability",
    "SMs",
    "memory GiB",
    "usable GiB",
    "GB/s",
    "fp16 TFLOPS",
    "int8 TOPS",
    "power W",
)


def list_row(profile: DeviceProfile) -> tuple[str, ...]:
    """The profile's line below HEADINGS; "-" where it has no figure."""
    watts = [mode.watts for mode in profile.power_modes if mode.watts is not None]
    return (
        profile.name,
        profile.kind,
        profile.backend,
        capability(profile),
        str(profile.streaming_multiprocessors),
        _plain(profile.memory_bytes / 2**30),
        f"{profile.usable_memory_bytes / 2**30:.1f}" if profile.memory_reserved_bytes else "-",
        _plain(profile.memory_bandwidth_bytes_per_s / 1e9),
        *(_tera(profile.peak_ops_per_s.get(dtype)) for dtype in ("fp16", "int8")),
        _plain(watts[0]) if len(watts) == 1 else f"{_plain(min(watts))}-{_plain(max(watts))}" if watts else "-",
    )


def show_rows(profile: DeviceProfile) -> list[tuple[str, str]]:
    """Label and value of every fact, with units; an empty label continues the row above."""
    shared = "shared with the CPU" if profile.memory_is_shared else "of the GPU alone"
    reserved = profile.memory_reserved_bytes
    rows = [
        ("kind", profile.kind),
        ("backends", ", ".join(profile.backends)),
        ("processor", profile.cpu_architecture or "that of the machine it is in"),
        ("compute capability", capability(profile)),
        ("SMs", str(profile.streaming_multiprocessors)),
        ("GPU clock", _unknown(profile.gpu_clock_hz, 1e6, "MHz")),
        ("memory", f"{_plain(profile.memory_bytes / 2**30)} GiB, {shared}"),
        ("reserved by the system", _unknown(reserved, 2**20, "MiB")),
        ("memory bandwidth", f"{_plain(profile.memory_bandwidth_bytes_per_s / 1e9)} GB/s"),
        ("memory bus", _unknown(profile.memory_bus_bits, 1, "bits")),
        ("memory transfers", _unknown(profile.memory_transfers_per_s, 1e9, "GT/s")),
        ("L2 cache", _unknown(profile.l2_cache_bytes, 2**20, "MiB")),
        ("shared memory per block", _unknown(profile.shared_memory_per_block_bytes, 2**10, "KiB")),
        ("dtypes of weights", ", ".join(profile.dtypes)),
    ]
    rows += _listed("peak, dense", [f"{dtype} {_tera(rate)} TOPS" for dtype, rate in profile.peak_ops_per_s.items()])
    rows += _listed("power modes", [_mode(mode) for mode in profile.power_modes])
    rows += _listed(
        "software", [f"{each.name}: CUDA {each.cuda}, {each.backend} {each.tensorrt}" for each in profile.software]
    )
    rows += _listed(
        "storage", [f"{each.medium}: {each.bandwidth_bytes_per_s / 1e9:.2f} GB/s" for each in profile.storage]
    )
    return [*rows, ("calls itself", ", ".join(profile.reported_names) or "unknown")]


def profile_document(profile: DeviceProfile) -> dict[str, Any]:
    """Every field as JSON takes it, and what is derived from them."""
    derived = {
        "backend": profile.backend,
        "usable_memory_bytes": profile.usable_memory_bytes,
        "storage_bandwidth_bytes_per_s": profile.storage_bandwidth_bytes_per_s,
    }
    return asdict(profile) | derived


def capability(profile: DeviceProfile) -> str:
    """With its dot: "8.7", "12.0"."""
    return f"{profile.compute_capability[:-1]}.{profile.compute_capability[-1]}"


def _mode(mode: PowerMode) -> str:
    parts = [
        f"{mode.watts:g} W" if mode.watts is not None else "",
        f"GPU {mode.gpu_clock_hz / 1e6:,.0f} MHz" if mode.gpu_clock_hz else "",
        f"{_plain(mode.memory_bandwidth_bytes_per_s / 1e9)} GB/s" if mode.memory_bandwidth_bytes_per_s else "",
        f"{mode.streaming_multiprocessors} SMs" if mode.streaming_multiprocessors else "",
    ]
    return f"{mode.name}: " + (", ".join(part for part in parts if part) or "no limit that is known")


def _listed(label: str, values: list[str]) -> list[tuple[str, str]]:
    return [(label if number == 0 else "", value) for number, value in enumerate(values)] or [(label, "unknown")]


def _unknown(value: float | None, unit: float, name: str) -> str:
    return "unknown: no public source" if value is None else f"{_plain(value / unit)} {name}"


def _tera(rate: float | None) -> str:
    return "-" if rate is None else f"{rate / 1e12:,.4g}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value - round(value)) < 0.005 else f"{value:,.1f}"
