"""What must hold between a profile's figures, so that a wrong digit is found."""

from __future__ import annotations

from edgekit.device.profile import DeviceProfile

#: Dense operations per SM and clock, a multiply-add counted as two, by compute capability.
#: fp32 on CUDA cores; the others on tensor cores with fp32 (int8: int32) accumulation. From the white papers' peak
#: rates divided by SMs and clock: Volta (Xavier), GA100, GA102, Orin (technical brief), AD102, GH100, Blackwell.
OPS_PER_SM_AND_CLOCK = {
    "72": {"fp32": 128, "fp16": 1024, "int8": 2048},
    "80": {"fp32": 128, "tf32": 1024, "fp16": 2048, "bf16": 2048, "int8": 4096},
    "86": {"fp32": 256, "tf32": 512, "fp16": 1024, "bf16": 1024, "int8": 2048},
    "87": {"fp32": 256, "fp16": 2048, "int8": 4096},
    "89": {"fp32": 256, "tf32": 512, "fp16": 1024, "bf16": 1024, "fp8": 2048, "int8": 2048},
    "90": {"fp32": 256, "tf32": 2048, "fp16": 4096, "bf16": 4096, "fp8": 8192, "int8": 8192},
    "100": {"fp32": 256, "tf32": 4096, "fp16": 8192, "bf16": 8192, "fp8": 16384, "int8": 16384, "fp4": 32768},
    "110": {"fp32": 256, "tf32": 4096, "fp16": 8192, "bf16": 8192, "fp8": 16384, "int8": 16384, "fp4": 32768},
    "120": {"fp32": 256, "tf32": 512, "fp16": 1024, "bf16": 1024, "fp8": 2048, "int8": 2048, "fp4": 4096},
    "121": {"fp32": 256, "tf32": 512, "fp16": 1024, "bf16": 1024, "fp8": 2048, "int8": 2048, "fp4": 4096},
}
#: GeForce cards halve what is accumulated in fp32; fp4 and int8 keep their rate.
_HALVED_ON_GEFORCE = ("tf32", "fp16", "bf16", "fp8")
#: Weights that an engine can have: bf16 from 8.0 on, fp8 from 8.9, fp4 from 10.0; int4 where TensorRT 10 runs.
LEAST_CAPABILITY = {"fp32": 0, "fp16": 53, "bf16": 80, "fp8": 89, "int8": 61, "int4": 75, "fp4": 100}
#: TensorRT-RTX 1.7: tensorrt_rtx.ComputeCapability.
RTX_CAPABILITIES = ("75", "80", "86", "89", "120", "121")
#: Most bytes of shared memory a block: CUDA C++ Programming Guide, technical specifications.
SHARED_KIB = {
    "72": 96,
    "80": 163,
    "86": 99,
    "87": 163,
    "89": 99,
    "90": 227,
    "100": 227,
    "110": 227,
    "120": 99,
    "121": 99,
}
#: Data sheets round, and name rates at other clocks than the boost clock they give.
_RATE_TOLERANCE, _BANDWIDTH_TOLERANCE = 0.03, 0.005
#: H100's and H200's CUDA cores boost to 1.98 GHz, its tensor cores to 1.83: white paper, tables of H100 SXM5.
_OTHER_CLOCK = {"90": {"fp32": 1.98e9}}


def contradictions(profile: DeviceProfile) -> list[str]:
    """What in the profile cannot be, a sentence each with the field and both figures; empty where all agrees."""
    capability = profile.compute_capability
    if capability not in OPS_PER_SM_AND_CLOCK:
        known = ", ".join(OPS_PER_SM_AND_CLOCK)
        return [f"compute_capability {capability} is not one that edgekit can check ({known})"]
    found = [*_rates(profile), *_bandwidth(profile), *_modes(profile)]
    for dtype in (*profile.dtypes, *profile.peak_ops_per_s):
        if int(capability) < LEAST_CAPABILITY.get(dtype, 0):
            found.append(f"dtypes: {dtype} needs compute capability {LEAST_CAPABILITY[dtype]}, not {capability}")
    shared = profile.shared_memory_per_block_bytes
    if shared is not None and shared != SHARED_KIB[capability] * 1024:
        found.append(f"shared_memory_per_block_bytes is {shared}, {SHARED_KIB[capability] * 1024} in {capability}")
    if "tensorrt-rtx" in profile.backends and capability not in RTX_CAPABILITIES:
        found.append(f"backends: tensorrt-rtx does not build for compute capability {capability}")
    for release in profile.software:
        if release.backend not in profile.backends:
            found.append(f"software {release.name}: {release.backend} is not one of the backends")
    return found


def _rates(profile: DeviceProfile) -> list[str]:
    """Each rate is SMs x clock x operations per clock; without a clock, the rates must give one clock."""
    table = dict(OPS_PER_SM_AND_CLOCK[profile.compute_capability])
    if "GeForce" in profile.title:
        table |= {dtype: table[dtype] // 2 for dtype in _HALVED_ON_GEFORCE if dtype in table}
    other = _OTHER_CLOCK.get(profile.compute_capability, {})
    clock = profile.gpu_clock_hz
    found = []
    for dtype, rate in profile.peak_ops_per_s.items():
        if dtype not in table:
            found.append(f"peak_ops_per_s.{dtype}: {profile.compute_capability} has no such rate")
            continue
        per_clock = profile.streaming_multiprocessors * table[dtype]
        if clock is None:
            clock = rate / per_clock
        expected = per_clock * other.get(dtype, clock)
        if abs(rate / expected - 1) > _RATE_TOLERANCE:
            found.append(
                f"peak_ops_per_s.{dtype} is {rate / 1e12:.4g}e12, but {profile.streaming_multiprocessors} SMs at "
                f"{other.get(dtype, clock) / 1e6:.0f} MHz give {expected / 1e12:.4g}e12"
            )
    return found


def _bandwidth(profile: DeviceProfile) -> list[str]:
    bits, transfers = profile.memory_bus_bits, profile.memory_transfers_per_s
    if bits is None or transfers is None:
        return []
    expected, stated = bits / 8 * transfers, profile.memory_bandwidth_bytes_per_s
    if abs(stated / expected - 1) <= _BANDWIDTH_TOLERANCE:
        return []
    return [
        f"memory_bandwidth_bytes_per_s is {stated / 1e9:.1f}e9, but {bits} bits at {transfers / 1e9:.3f} GT/s "
        f"give {expected / 1e9:.1f}e9"
    ]


def _modes(profile: DeviceProfile) -> list[str]:
    """The largest mode must be the one that the device's own figures are of."""
    found = []
    for field in ("gpu_clock_hz", "memory_bandwidth_bytes_per_s"):
        stated = getattr(profile, field)
        known = [value for mode in profile.power_modes if (value := getattr(mode, field)) is not None]
        if known and stated is not None and abs(max(known) / stated - 1) > _BANDWIDTH_TOLERANCE:
            found.append(f"{field} is {stated:g}, but that of the largest power mode is {max(known):g}")
    watts = [mode.watts for mode in profile.power_modes if mode.watts is not None]
    names = [mode.name for mode in profile.power_modes if mode.watts is not None]
    for name, limit in zip(names, watts, strict=True):
        stated_w = next((part for part in name.replace("MODE_", "").split("_") if part.endswith("W")), "")
        if stated_w.removesuffix("W").isdecimal() and int(stated_w.removesuffix("W")) != limit:
            found.append(f"power mode {name} has a limit of {limit:g} W")
    return found
