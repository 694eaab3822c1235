"""Power, temperature, clocks and memory of the device while something runs on it.

    with Recorder() as recorder:
        work()
    print(recorder.telemetry.mean_power_w)

Where nothing can be read, `telemetry.missing` says why and every figure is None; nothing is estimated.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from edgekit.device import host
from edgekit.device.jetson import jetson
from edgekit.device.nvml import NvmlSource, NvmlUnavailable
from edgekit.device.reading import Reading, Telemetry, telemetry_from
from edgekit.device.tegrastats import TegrastatsSource


class Source(Protocol):
    """What gives readings. `read` gives None while there is no new one."""

    name: str

    def read(self) -> Reading | None: ...

    def close(self) -> None: ...


class NoSource(Exception):
    """Nothing on this machine tells a device's power and clocks; the reason is its text."""


def open_source(interval_s: float, gpu: int = 0, *, on_cpu: bool = False) -> Source:
    """tegrastats on a Jetson, NVML elsewhere. Raises NoSource with the reason.

    tegrastats goes first because it shows the whole module's power; NVML shows none on a Jetson.

    Args:
        on_cpu: the work is the processor's: NVML, which shows the power of a card alone, is not asked.
    """
    if shutil.which("tegrastats"):
        try:
            return TegrastatsSource(interval_s)
        except OSError as error:
            raise NoSource(f"tegrastats does not start: {error.strerror}") from error
    if on_cpu:
        raise NoSource("no tegrastats on the PATH, and nothing else that edgekit reads tells a processor's power")
    try:
        return NvmlSource(gpu)
    except NvmlUnavailable as error:
        raise NoSource(f"no tegrastats on the PATH, and {error}") from error


class Recorder:
    """Reads the device in the background between entering and leaving.

    Args:
        interval_s: between looks; the driver renews a card's power every 0.1 s or less often.
        open_: gives the source; for tests.
    """

    def __init__(self, interval_s: float = 0.2, open_: Callable[[float], Source] = open_source) -> None:
        self._interval_s = interval_s
        self._open = open_
        self._stop = threading.Event()
        self._readings: list[Reading] = []
        self._source: Source | None = None
        self._thread: threading.Thread | None = None
        self._missing = ""
        self._power_mode = ""

    def __enter__(self) -> Recorder:
        board = jetson(nvpmodel=host.output(["nvpmodel", "-q"]))
        self._power_mode = board.power_mode if board else ""
        try:
            self._source = self._open(self._interval_s)
        except NoSource as reason:
            self._missing = str(reason)
            return self
        self._thread = threading.Thread(target=self._record, args=(self._source,), name="telemetry", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._source is not None:
            self._look(self._source)
            self._source.close()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Every one, in the order of time; complete after leaving."""
        return tuple(self._readings)

    @property
    def telemetry(self) -> Telemetry:
        """What was read; complete after leaving."""
        if self._source is None:
            return Telemetry(source="", missing=self._missing or "not started", power_mode=self._power_mode)
        return telemetry_from(self._readings, self._source.name, self._power_mode)

    def _record(self, source: Source) -> None:
        self._look(source)
        while not self._stop.wait(self._interval_s):
            self._look(source)

    def _look(self, source: Source) -> None:
        reading = source.read()
        if reading is not None:
            self._readings.append(reading)
