"""Readings of power, temperature, clocks and memory: parsed from recorded lines, from a fake NVML, and added up."""

from __future__ import annotations

import ctypes
import math
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgekit.device import host, nvml
from edgekit.device.nvml import NvmlSource, NvmlUnavailable
from edgekit.device.reading import Reading, telemetry_from
from edgekit.device.tegrastats import TegrastatsSource, power_rails, reading_from_line
from edgekit.device.telemetry import NoSource, Recorder, open_source
from tests.device.recorded import TEGRASTATS_AGX_ORIN, TEGRASTATS_ORIN_NANO, TEGRASTATS_ORIN_NX, TEGRASTATS_THOR

MIB = 2**20


@pytest.mark.parametrize(
    ("line", "expected", "rails"),
    [
        (TEGRASTATS_ORIN_NANO, Reading(1.5, 4.968, 45.437, None, None, 1273 * MIB, 0.0), "VDD_IN"),
        (TEGRASTATS_ORIN_NX, Reading(1.5, None, 59.625, 1172e6, 3199e6, 5997 * MIB, 0.27), ""),
        (
            TEGRASTATS_AGX_ORIN,  # no gpu sensor in it: the junction's; 3123 + 1456 + 2876 mW
            Reading(1.5, 7.455, 43.0, 612e6, 2133e6, 5530 * MIB, 0.18),
            "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0",
        ),
        (TEGRASTATS_THOR, Reading(1.5, 68.862, 56.5, None, None, 42435 * MIB, None), "VIN"),
        # JetPack 7.0 on Thor gives clocks without a load; the load is unknown, not 0.
        ("RAM 9000/125772MB (lfb 2x4MB) GR3D_FREQ @[314,314,314] cpu@40C",
         Reading(1.5, None, None, 314e6, None, 9000 * MIB, None), ""),
        # A sensor that is off shows -256 C.
        ("RAM 1/2MB GR3D_FREQ 5%@305 GPU@-256C tj@40C VDD_IN 1000mW/900mW",
         Reading(1.5, 1.0, 40.0, 305e6, None, MIB, 0.05), "VDD_IN"),
        ("RAM 1/2MB GR3D_FREQ 999%", Reading(1.5, None, None, None, None, MIB, None), ""),
    ],
)  # fmt: skip
def test_lines_of_tegrastats(line: str, expected: Reading, rails: str) -> None:
    reading = reading_from_line(line, 1.5)
    assert reading is not None
    assert reading == Reading(**{**expected.__dict__, "power_w": reading.power_w})
    assert (reading.power_w is None) == (expected.power_w is None)
    assert math.isclose(reading.power_w or 0, expected.power_w or 0)
    assert power_rails(line) == rails


@pytest.mark.parametrize(
    "line", ["", "tegrastats: permission denied", "RAM /7620MB", "GR3D_FREQ 50%", "01-04-2025 16:02:59 RA"]
)
def test_lines_that_are_none(line: str) -> None:
    assert reading_from_line(line, 0.0) is None


def test_power_is_integrated_by_the_trapezium_rule() -> None:
    """0 to 1 s: 1.5 W on average, 1.5 J; 1 to 3 s: 2.5 W, 5 J."""
    readings = [
        Reading(10.0, 1.0, 40.0, 1e9, 2e9, 5, 0.0),
        Reading(11.0, 2.0, 50.0, 0.5e9, 2e9, 9, 1.0),
        Reading(13.0, 3.0, 45.0, 0.6e9, None, 7, 0.5),
    ]
    told = telemetry_from(readings, "a meter", "MAXN")
    assert (told.source, told.missing, told.power_mode, told.readings) == ("a meter", "", "MAXN", 3)
    assert told.seconds == 3.0
    assert told.energy_j == pytest.approx(6.5)
    assert told.mean_power_w == pytest.approx(6.5 / 3)
    assert (told.peak_power_w, told.peak_temperature_c, told.peak_memory_used_bytes) == (3.0, 50.0, 9)
    assert told.mean_gpu_clock_hz == pytest.approx(0.7e9)
    assert told.least_gpu_clock_hz == 0.5e9
    assert told.mean_memory_clock_hz == 2e9
    assert told.mean_busy == pytest.approx(0.5)


def test_what_is_never_told_stays_unknown() -> None:
    told = telemetry_from([Reading(0.0), Reading(1.0)], "a mute")
    assert told.readings == 2
    for name in ("mean_power_w", "peak_power_w", "energy_j", "peak_temperature_c", "mean_gpu_clock_hz", "mean_busy"):
        assert getattr(told, name) is None
    single = telemetry_from([Reading(0.0, power_w=4.0)], "a glance")
    assert (single.mean_power_w, single.energy_j) == (4.0, None)
    assert telemetry_from([], "a meter").missing == "a meter gave no reading"


class FakeNvml:
    """The functions of nvml.h that are used; `refused` ones give NVML_ERROR_NOT_SUPPORTED, 3."""

    def __init__(self, refused: tuple[str, ...] = (), init: int = 0, handle: int = 0) -> None:
        self.refused, self.init, self.handle = refused, init, handle
        self.shut = 0

    def nvmlInit_v2(self) -> int:
        return self.init

    def nvmlShutdown(self) -> int:
        self.shut += 1
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> int:
        return self.handle

    def nvmlDeviceGetName(self, device: Any, buffer: Any, length: Any) -> int:
        buffer.value = b"NVIDIA L4"
        return 0

    def __getattr__(self, name: str) -> Any:
        def give(device: Any, *arguments: Any) -> int:
            if name in self.refused:
                return 3
            value = arguments[-1]._obj
            if name == "nvmlDeviceGetPowerUsage":
                value.value = 71_500
            elif name == "nvmlDeviceGetTemperature":
                value.value = 61
            elif name == "nvmlDeviceGetClockInfo":
                value.value = {1: 2040, 2: 6251}[arguments[0].value]
            elif name == "nvmlDeviceGetMemoryInfo":
                value.used = 3 * MIB
            elif name == "nvmlDeviceGetUtilizationRates":
                value.gpu = 87
            else:
                raise AssertionError(name)
            return 0

        return give


def test_nvml() -> None:
    library = FakeNvml()
    source = NvmlSource(library=library)
    assert source.name == "NVML, NVIDIA L4"
    reading = source.read()
    assert reading == Reading(reading.seconds, 71.5, 61.0, 2.04e9, 6.251e9, 3 * MIB, 0.87)
    source.close()
    assert library.shut == 1


def test_nvml_that_does_not_tell_everything() -> None:
    refused = ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates")
    reading = NvmlSource(library=FakeNvml(refused)).read()
    assert (reading.power_w, reading.memory_used_bytes, reading.busy) == (None, None, None)
    assert reading.temperature_c == 61.0


def test_structures_are_those_of_nvml_h() -> None:
    """nvmlMemory_t: three unsigned long long; nvmlUtilization_t: two unsigned int."""
    assert ctypes.sizeof(nvml._Memory) == 24
    assert ctypes.sizeof(nvml._Utilization) == 8


def test_nvml_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-ml-that-is-not-there.so")
    with pytest.raises(NvmlUnavailable, match="driver is not installed"):
        NvmlSource()
    with pytest.raises(NvmlUnavailable, match="nvmlInit gave 9"):
        NvmlSource(library=FakeNvml(init=9))
    library = FakeNvml(handle=6)
    with pytest.raises(NvmlUnavailable, match="no GPU 4"):
        NvmlSource(4, library)
    assert library.shut == 1


class Meter:
    """A source whose power rises by a watt with each look, and which now and then has nothing new."""

    name = "a meter"

    def __init__(self) -> None:
        self.looks = 0
        self.closed = False

    def read(self) -> Reading | None:
        self.looks += 1
        return None if self.looks % 3 == 0 else Reading(float(self.looks), power_w=float(self.looks))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def no_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "output", lambda command: None)


@pytest.mark.usefixtures("no_jetson")
def test_recording() -> None:
    meter = Meter()
    with Recorder(0.01, lambda interval_s: meter) as recorder:
        time.sleep(0.1)
    told = recorder.telemetry
    assert meter.closed
    assert told.source == "a meter"
    assert told.readings >= 3
    assert told.peak_power_w in (float(meter.looks), float(meter.looks - 1))
    looks = meter.looks
    time.sleep(0.05)
    assert meter.looks == looks


@pytest.mark.usefixtures("no_jetson")
def test_a_failure_of_the_work_ends_the_recording_and_goes_on() -> None:
    meter = Meter()
    with pytest.raises(RuntimeError, match="the work"), Recorder(0.01, lambda interval_s: meter):
        raise RuntimeError("the work")
    assert meter.closed


@pytest.mark.usefixtures("no_jetson")
def test_nothing_to_read_says_why() -> None:
    def refuse(interval_s: float) -> Any:
        raise NoSource("no meter in this house")

    with Recorder(0.01, refuse) as recorder:
        pass
    told = recorder.telemetry
    assert (told.source, told.missing, told.readings) == ("", "no meter in this house", 0)
    assert told.mean_power_w is None


def test_where_there_is_neither_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-ml-that-is-not-there.so")
    with pytest.raises(NoSource, match="no tegrastats on the PATH, and .*driver is not installed"):
        open_source(0.1)


def _tegrastats(folder: Path, script: str) -> None:
    program = folder / "tegrastats"
    program.write_text(
        f"#!{sys.executable}\nimport sys, time\nassert sys.argv[1:] == ['--interval', '50'], sys.argv\n{script}"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.mark.usefixtures("no_jetson")
def test_a_tegrastats_process_is_followed_and_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _tegrastats(
        tmp_path,
        f"while True:\n    print('banner')\n    print({TEGRASTATS_ORIN_NANO!r}, flush=True)\n    time.sleep(0.05)\n",
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with Recorder(0.05) as recorder:
        time.sleep(0.6)
    told = recorder.telemetry
    assert told.source == "tegrastats, VDD_IN"
    assert told.readings >= 2
    assert told.mean_power_w == pytest.approx(4.968)
    assert told.energy_j == pytest.approx(4.968 * told.seconds)


def test_a_tegrastats_that_ends_gives_no_reading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _tegrastats(tmp_path, "sys.exit('tegrastats: permission denied')\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    source = TegrastatsSource(0.05)
    time.sleep(0.3)
    assert source.read() is None
    source.close()
    assert telemetry_from([], source.name).missing == "tegrastats gave no reading"


def test_a_tegrastats_that_cannot_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tegrastats").write_text("\x7fELF of another machine")
    (tmp_path / "tegrastats").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoSource, match="tegrastats does not start"):
        open_source(0.1)
