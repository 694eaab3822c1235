"""tegrastats: a Jetson's power, temperature, clocks and memory, a line per interval.

The form of a line:
https://docs.nvidia.com/drive/drive-os-5.2.0.0L/drive-os/DRIVE_OS_Linux_SDK_Development_Guide/Utilities/util_tegrastats.html
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable

from edgekit.device.reading import Reading

_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
_LOAD = re.compile(r"\bGR3D_FREQ (?:(\d+)%)?(?:@\[?(\d+(?:,\d+)*)\]?)?")
_MEMORY_CLOCK = re.compile(r"\bEMC_FREQ (?:\d+%)?@\[?(\d+)")
_TEMPERATURE = re.compile(r"\b([A-Za-z][A-Za-z0-9_-]*)@(-?\d+(?:\.\d+)?)C\b")
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (-?\d+)mW/(-?\d+)mW")
#: Rails that are the whole module: of Orin Nano, Orin NX and Xavier NX; of Thor.
_WHOLE = ("VDD_IN", "VIN")
#: On AGX Orin no rail is the whole module; these three together are its supply.
_PARTS = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
#: A sensor that is switched off shows -256 C.
_OFF_C = -200.0


def reading_from_line(line: str, seconds: float) -> Reading | None:
    """A line as a reading, or None for a line that is none (a message, a torn line without its memory).

    Power is the present one of each rail (before the stroke), not its average.
    """
    ram = _RAM.search(line)
    if ram is None:
        return None
    load, emc = _LOAD.search(line), _MEMORY_CLOCK.search(line)
    clocks = [int(text) for text in (load[2] or "").split(",") if text] if load else []
    rails = {name: int(now) for name, now, _ in _RAIL.findall(line)}
    heat = {name.lower(): float(text) for name, text in _TEMPERATURE.findall(line)}
    return Reading(
        seconds=seconds,
        power_w=_power_w(rails),
        temperature_c=next((heat[name] for name in ("gpu", "tj") if heat.get(name, _OFF_C) > _OFF_C), None),
        gpu_clock_hz=max(clocks) * 1e6 if clocks else None,
        memory_clock_hz=int(emc[1]) * 1e6 if emc else None,
        memory_used_bytes=int(ram[1]) * 2**20,
        busy=int(load[1]) / 100 if load and load[1] and int(load[1]) <= 100 else None,
    )


def power_rails(line: str) -> str:
    """Which rails the power of such a line is of: "VDD_IN"; "" where it has none that is known."""
    rails = {name for name, _, _ in _RAIL.findall(line)}
    whole = next((name for name in _WHOLE if name in rails), "")
    return whole or (" + ".join(_PARTS) if rails >= set(_PARTS) else "")


def _power_w(rails: dict[str, int]) -> float | None:
    for name in _WHOLE:
        if name in rails:
            return rails[name] / 1000
    if all(name in rails for name in _PARTS):
        return sum(rails[name] for name in _PARTS) / 1000
    return None


class TegrastatsSource:
    """The newest line of a tegrastats process that runs until `close`.

    Args:
        interval_s: between its lines.
        start: makes the process; stdout is text. Raises OSError where tegrastats is not there.
    """

    def __init__(self, interval_s: float, start: Callable[[list[str]], subprocess.Popen[str]] | None = None) -> None:
        self._process = (start or _start)(["tegrastats", "--interval", str(max(1, round(interval_s * 1000)))])
        self._latest: Reading | None = None
        self.name = "tegrastats"
        self._thread = threading.Thread(target=self._follow, name="tegrastats", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for line in self._process.stdout or ():
            reading = reading_from_line(line, time.monotonic())
            if reading is not None:
                self._latest = reading
                self.name = f"tegrastats, {power_rails(line) or 'no power rail that is known'}"

    def read(self) -> Reading | None:
        """The newest line's reading, once; None until the next line."""
        reading, self._latest = self._latest, None
        return reading

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(timeout=5)
        if self._process.stdout:
            self._process.stdout.close()


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
