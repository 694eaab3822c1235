"""The profiles that edgekit ships, against published headline figures and against arithmetic of their own."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path, PurePosixPath

import pytest

from edgekit.device.physics import contradictions
from edgekit.device.profile import DEVICES, DeviceProfile, device_names, device_profile

ROOT = Path(__file__).parents[2]
#: Every device that the project promises to know.
PROMISED = {
    *("jetson-orin-nano-4gb", "jetson-orin-nano-8gb", "jetson-orin-nx-8gb", "jetson-orin-nx-16gb"),
    *("jetson-agx-orin-32gb", "jetson-agx-orin-64gb", "jetson-xavier-nx", "jetson-agx-xavier"),
    *("jetson-thor-t4000", "jetson-thor-t5000", "l4", "a10", "a100-40gb", "a100-80gb", "l40s", "h100-sxm", "h200"),
    *("b200", "dgx-spark", "rtx-3090", "rtx-4090", "rtx-5090", "rtx-pro-6000"),
}
#: Headline TOPS as NVIDIA quotes them: type, figure, and how often it counts a dense operation of the GPU (2: sparse).
#: DLAs are subtracted: Orin NX 100 and 70 less 40 and 20; AGX Orin 275 and 200 less 105 and 92; Xavier 32 less 10.
#: The clock is that of the figure, where it is not the largest power mode's.
HEADLINES = [
    ("jetson-orin-nano-8gb", "int8", 67e12, 2, None),
    ("jetson-orin-nano-8gb", "int8", 40e12, 2, 625e6),
    ("jetson-orin-nano-4gb", "int8", 20e12, 2, 625e6),
    ("jetson-orin-nx-16gb", "int8", (100 - 40) * 1e12, 2, 918e6),
    ("jetson-orin-nx-8gb", "int8", (70 - 20) * 1e12, 2, 765e6),
    ("jetson-orin-nx-16gb", "int8", (157 - 80) * 1e12, 2, None),
    ("jetson-orin-nx-8gb", "int8", (117 - 40) * 1e12, 2, None),
    ("jetson-agx-orin-64gb", "int8", (275 - 105) * 1e12, 2, None),
    ("jetson-agx-orin-32gb", "int8", (200 - 92) * 1e12, 2, None),
    ("jetson-agx-xavier", "int8", (32 - 10) * 1e12, 1, None),
    ("jetson-thor-t5000", "fp4", 2070e12, 2, None),
    ("jetson-thor-t4000", "fp4", 1200e12, 2, None),
    ("l4", "int8", 485e12, 2, None),
    ("l4", "fp16", 242e12, 2, None),
    ("a10", "fp16", 250e12, 2, None),
    ("a100-40gb", "fp16", 624e12, 2, None),
    ("a100-80gb", "int8", 1248e12, 2, None),
    ("l40s", "fp8", 1466e12, 2, None),
    ("h100-sxm", "fp16", 1979e12, 2, None),
    ("h200", "fp8", 3958e12, 2, None),
    ("b200", "fp4", 144e15 / 8, 2, None),
    ("dgx-spark", "fp4", 1e15, 2, None),
    ("rtx-4090", "int8", 1321e12, 2, None),
    ("rtx-5090", "fp4", 3352e12, 2, None),
    ("rtx-pro-6000", "fp4", 4000e12, 2, None),
]
#: CUDA cores on the data sheets, and cores of an SM: 64 in Volta and GA100, 128 since.
CORES = {
    "jetson-orin-nano-4gb": 512, "jetson-orin-nano-8gb": 1024, "jetson-orin-nx-8gb": 1024, "jetson-orin-nx-16gb": 1024,
    "jetson-agx-orin-32gb": 1792, "jetson-agx-orin-64gb": 2048, "jetson-xavier-nx": 384, "jetson-agx-xavier": 512,
    "jetson-thor-t4000": 1536, "jetson-thor-t5000": 2560, "l4": 7424, "a10": 9216, "a100-40gb": 6912,
    "a100-80gb": 6912, "l40s": 18176, "h100-sxm": 16896, "h200": 16896, "b200": 18944, "dgx-spark": 6144,
    "rtx-3090": 10496, "rtx-4090": 16384, "rtx-5090": 21760, "rtx-pro-6000": 24064,
}  # fmt: skip


def profiles() -> list[DeviceProfile]:
    return [device_profile(name) for name in device_names()]


def test_all_promised_devices_are_known() -> None:
    assert set(device_names()) == PROMISED


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_figures_agree_with_each_other(name: str) -> None:
    assert contradictions(device_profile(name)) == []


@pytest.mark.parametrize(("name", "dtype", "figure", "counts", "clock_hz"), HEADLINES)
def test_headline_figures(name: str, dtype: str, figure: float, counts: int, clock_hz: float | None) -> None:
    """Within 3 %: headlines are rounded."""
    profile = device_profile(name)
    rate = profile.peak_ops_per_s[dtype]
    if clock_hz is not None:
        assert profile.gpu_clock_hz is not None
        rate *= clock_hz / profile.gpu_clock_hz
    assert rate * counts == pytest.approx(figure, rel=0.03)


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_cores(name: str) -> None:
    profile = device_profile(name)
    per_sm = 64 if profile.compute_capability in ("72", "80") else 128
    assert profile.streaming_multiprocessors * per_sm == CORES[name]


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
def test_memory_is_what_the_name_says(profile: DeviceProfile) -> None:
    stated = re.search(r"(\d+)\s?GB", f"{profile.name.upper()} {profile.title}")
    if stated:
        assert profile.memory_bytes == int(stated[1]) * 2**30
    reserved = profile.memory_reserved_bytes
    if reserved is not None:
        # Jetsons of 8 GB lose most of it: 23 %.
        assert reserved / profile.memory_bytes < (0.25 if profile.kind == "jetson" else 0.07)


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
def test_what_a_kind_is(profile: DeviceProfile) -> None:
    jetson = profile.kind == "jetson"
    assert profile.memory_is_shared == (jetson or profile.name == "dgx-spark")
    assert profile.name.startswith("jetson-") == jetson
    # A processor of its own, or that of the machine that a card is put into.
    assert profile.cpu_architecture == ("aarch64" if profile.memory_is_shared else None)
    assert profile.backend == ("tensorrt-rtx" if profile.kind == "rtx" else "tensorrt")
    assert all(release.name.startswith("JetPack") == jetson for release in profile.software)
    assert {release.backend for release in profile.software} == set(profile.backends)
    assert "fp16" in profile.dtypes
    assert "fp16" in profile.peak_ops_per_s


def test_orin_has_neither_fp8_nor_fp4() -> None:
    for profile in profiles():
        if profile.compute_capability == "87":
            assert profile.dtypes == ("fp32", "fp16", "int8", "int4")


def test_modes_of_orin_nano_super() -> None:
    """NVIDIA's nvpmodel_p3767_0003_super.conf: clocks in Hz, EMC in Hz of two transfers over 128 bits."""
    modes = {mode.name: mode for mode in device_profile("jetson-orin-nano-8gb").power_modes}
    assert next(iter(modes)) == "25W"  # PM_CONFIG DEFAULT=1
    for name, gpu, emc in (("15W", 612e6, 2133e6), ("25W", 918e6, 3199e6)):
        assert modes[name].gpu_clock_hz == gpu
        assert modes[name].memory_bandwidth_bytes_per_s == pytest.approx(emc * 2 * 16, rel=0.002)
    assert modes["7W"].streaming_multiprocessors == 4  # TPC_PG_MASK 252 leaves two of eight TPCs
    assert modes["MAXN_SUPER"].watts is None


def test_no_name_is_reported_by_two_devices() -> None:
    names = [name for profile in profiles() for name in profile.reported_names]
    assert len(set(names)) == len(names)
    assert all(profile.reported_names for profile in profiles())


def test_sources_are_documents_or_addresses() -> None:
    for profile in profiles():
        for field, source in profile.sources.items():
            assert len(source) > 20, (profile.name, field)


def test_the_readme_lists_what_is_missing_and_nothing_else() -> None:
    text = (ROOT / "devices" / "README.md").read_text()
    listed: dict[str, set[str]] = {}
    for field, names in re.findall(r"^\| `(\w+)` \| ([a-z0-9, -]+) \| ", text.partition("## What is missing")[2], re.M):
        listed.setdefault(field, set()).update(names.split(", "))
    fields = {
        *("memory_reserved_bytes", "l2_cache_bytes", "gpu_clock_hz", "memory_bus_bits", "memory_transfers_per_s"),
        *("shared_memory_per_block_bytes", "storage"),
    }
    lacking = {field: {each.name for each in profiles() if not getattr(each, field)} for field in fields}
    assert listed == {field: names for field, names in lacking.items() if names}


def test_wheels_carry_the_profiles() -> None:
    """The package's link leads to devices/, and the package data of pyproject.toml match what it holds."""
    assert DEVICES.resolve() == ROOT / "devices"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    for name in device_names():
        path = PurePosixPath("known", f"{name}.toml")
        assert any(path.match(pattern) and len(path.parts) == pattern.count("/") + 1 for pattern in patterns), name
