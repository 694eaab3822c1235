"""A profile's file is read strictly: each wrong one is refused by the field it is wrong in."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.device.profile import DEVICES, device_profile
from edgekit.device.profile_file import profile_from_file
from edgekit.errors import DeviceError

Change = Callable[[str], str]
L4 = (DEVICES / "l4.toml").read_text()


def changed(pattern: str, replacement: str) -> Change:
    def change(text: str) -> str:
        new, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
        assert count == 1, pattern
        return new

    return change


def refusal(tmp_path: Path, text: str) -> DeviceError:
    file = tmp_path / "strange.toml"
    file.write_text(text)
    with pytest.raises(DeviceError) as caught:
        profile_from_file(file)
    assert str(file) in caught.value.fact or "TOML" in caught.value.rule
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (changed(r"^schema = 1$", ""), "schema"),
        (changed(r"^schema = 1$", "schema = 2"), "schema"),
        (changed(r"^memory_bytes = .*$", ""), "memory_bytes"),
        (changed(r"^memory_bytes = .*$", 'memory_bytes = "24 GB"'), "memory_bytes must be a whole number"),
        (changed(r"^memory_bytes = .*$", "memory_bytes = 24.0"), "memory_bytes must be a whole number"),
        (changed(r"^memory_bytes = .*$", "memory_bytes = true"), "memory_bytes must be a whole number"),
        (changed(r"^memory_bytes = .*$", "memory_bytes = -1"), "memory_bytes must be a positive number"),
        (changed(r"^gpu_clock_hz = .*$", "gpu_clock_hz = nan"), "gpu_clock_hz must be a positive number"),
        (changed(r"^gpu_clock_hz = .*$", "gpu_clock_hz = inf"), "gpu_clock_hz must be a positive number"),
        (changed(r"^memory_is_shared = .*$", "memory_is_shared = 0"), "memory_is_shared must be true or false"),
        (changed(r"^title = .*$", 'title = " "'), "title must be a text"),
        (changed(r"^kind = .*$", 'kind = "datacentre"'), "kind must be of"),
        (changed(r"^backends = \[.*$", 'backends = ["tensorrt-rt"]'), "backends 1 must be of"),
        (changed(r"^backends = \[.*$", "backends = []"), "backends must be a list that is not empty"),
        (changed(r"^backends = \[.*$", 'backends = ["tensorrt", "tensorrt"]'), "backends must be a list without"),
        (changed(r"^dtypes = \[.*$", 'dtypes = ["fp17"]'), "dtypes 1 must be of"),
        (changed(r"^dtypes = \[.*$", 'dtypes = "fp16"'), "dtypes must be a list"),
        (changed(r"^fp16 = .*$", "fp19 = 1e12"), "peak_ops_per_s must be of"),
        (changed(r"^fp16 = .*$", "fp16 = 0"), "peak_ops_per_s.fp16 must be a positive number"),
        (changed(r"^compute_capability = .*$", 'compute_capability = "8.9"'), "compute_capability must be"),
        (changed(r"^memory_reserved_bytes = .*$", "memory_reserved_bytes = 30_000_000_000"), "memory_reserved_bytes"),
        (changed(r"^watts = 72$", 'watts = "72 W"'), "power_modes 1: watts must be a number"),
        (changed(r"^watts = 72$", "wats = 72"), "power_modes 1: wats"),
        (changed(r"^watts = 72$", "streaming_multiprocessors = 59"), "power_modes default: streaming_multiprocessors"),
        (changed(r'^cuda = "13.0"$', ""), "software 1: cuda"),
        (changed(r'^backend = "tensorrt-rtx"$', 'backend = "onnxruntime"'), "software 2: backend must be of"),
        (changed(r"^l2_cache_bytes = \d.*$", "l2_cache_byte = 50331648"), "l2_cache_byte"),
        (changed(r'^l2_cache_bytes = ".*$', ""), "sources.l2_cache_bytes"),
        (changed(r'^l2_cache_bytes = ".*$', 'l2_cache_bytes = ""'), "sources.l2_cache_bytes must be a text"),
        (changed(r'^l2_cache_bytes = ".*$', 'l3_cache_bytes = "a rumour"'), "sources.l2_cache_bytes"),
        (changed(r"^l2_cache_bytes = \d.*$", ""), "sources.l2_cache_bytes is not"),
        (changed(r"^\[sources\]$", "[origins]"), "origins"),
        (changed(r"^kind = .*$", "kind = "), "TOML"),
        (
            changed(r"^schema = 1$", 'schema = 1\ncpu_architecture = "arm64"'),
            "cpu_architecture must be of aarch64, x86_64",
        ),
        (changed(r"^schema = 1$", 'schema = 1\ncpu_architecture = "aarch64"'), "sources.cpu_architecture"),
    ],
)
def test_each_mistake_is_refused_by_its_field(tmp_path: Path, change: Change, named: str) -> None:
    error = refusal(tmp_path, change(L4))
    assert named in f"{error.rule}\n{error.fact}"


def test_unknown_fields_and_values_come_with_the_nearest_ones(tmp_path: Path) -> None:
    assert "l2_cache_bytes" in refusal(tmp_path, changed(r"^l2_cache_bytes = \d", "l2_cash_bytes = 5")(L4)).next_step
    assert "'fp16'" in refusal(tmp_path, changed(r"^dtypes = \[.*$", 'dtypes = ["fp_16"]')(L4)).next_step


def test_the_reader_takes_the_file_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "l4.toml").write_text(L4)
    profile = profile_from_file(tmp_path / "l4.toml")
    assert profile == device_profile("l4")
    assert profile.name == "l4"
    assert profile.backend == profile.backends[0] == "tensorrt"
    assert profile.usable_memory_bytes == 23034 * 2**20  # what nvidia-smi shows
    assert profile.storage_bandwidth_bytes_per_s is None
    assert profile.peak_ops_per_s["fp16"] == pytest.approx(121e12)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        profile_from_file(tmp_path / "nothing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(DeviceError, match="must be valid TOML"):
        profile_from_file(tmp_path / "binary.toml")


@pytest.mark.parametrize("name", ["jetson-orin-nano", "RTX-4090", "l4s", "../l4", "", "h100"])
def test_unknown_names_are_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(DeviceError) as caught:
        device_profile(name)
    assert repr(name) in caught.value.fact
    nearest = {
        "jetson-orin-nano": "jetson-orin-nano-8gb",
        "RTX-4090": "rtx-4090",
        "l4s": "l40s",
        "../l4": "l4",
        "": "edgekit devices list",
        "h100": "h100-sxm",
    }
    assert nearest[name] in caught.value.next_step
