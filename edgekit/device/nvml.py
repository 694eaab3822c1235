"""NVML, the driver's own library, by ctypes: what a GPU draws and how it is clocked, in microseconds a look.

No package is needed for it, and no process per reading, as nvidia-smi would need. The functions and numbers are those
of nvml.h (https://docs.nvidia.com/deploy/nvml-api/).
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

from edgekit.device.reading import Reading

LIBRARY = "libnvidia-ml.so.1"
_TEMPERATURE_GPU, _CLOCK_SM, _CLOCK_MEMORY = 0, 1, 2


class NvmlUnavailable(Exception):
    """The library is not there, does not start, or has no such GPU."""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class NvmlSource:
    """Readings of one GPU.

    Args:
        index: of the GPU, in the driver's order.
        library: NVML; for tests.

    Raises:
        NvmlUnavailable: with the reason.
    """

    def __init__(self, index: int = 0, library: Any = None) -> None:
        if library is None:
            try:
                library = ctypes.CDLL(LIBRARY)
            except OSError as error:
                raise NvmlUnavailable(f"{LIBRARY} cannot be loaded: the NVIDIA driver is not installed") from error
        self._library = library
        code = library.nvmlInit_v2()
        if code:
            raise NvmlUnavailable(f"NVML does not start: nvmlInit gave {code}")
        self._device = ctypes.c_void_p()
        code = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(self._device))
        if code:
            library.nvmlShutdown()
            raise NvmlUnavailable(f"NVML has no GPU {index}: nvmlDeviceGetHandleByIndex gave {code}")
        name = ctypes.create_string_buffer(96)
        known = library.nvmlDeviceGetName(self._device, name, ctypes.c_uint(len(name))) == 0
        self.name = "NVML, " + (name.value.decode(errors="replace") if known else f"GPU {index}")

    def read(self) -> Reading:
        """A look now. What this GPU does not tell is None."""
        now = time.monotonic()
        milliwatts = self._number("nvmlDeviceGetPowerUsage")
        celsius = self._number("nvmlDeviceGetTemperature", ctypes.c_uint(_TEMPERATURE_GPU))
        core = self._number("nvmlDeviceGetClockInfo", ctypes.c_uint(_CLOCK_SM))
        memory_clock = self._number("nvmlDeviceGetClockInfo", ctypes.c_uint(_CLOCK_MEMORY))
        memory, busy = _Memory(), _Utilization()
        has_memory = self._library.nvmlDeviceGetMemoryInfo(self._device, ctypes.byref(memory)) == 0
        has_busy = self._library.nvmlDeviceGetUtilizationRates(self._device, ctypes.byref(busy)) == 0
        return Reading(
            seconds=now,
            power_w=None if milliwatts is None else milliwatts / 1000,
            temperature_c=None if celsius is None else float(celsius),
            gpu_clock_hz=None if core is None else core * 1e6,
            memory_clock_hz=None if memory_clock is None else memory_clock * 1e6,
            memory_used_bytes=int(memory.used) if has_memory else None,
            busy=busy.gpu / 100 if has_busy else None,
        )

    def _number(self, function: str, *arguments: Any) -> int | None:
        value = ctypes.c_uint()
        code = getattr(self._library, function)(self._device, *arguments, ctypes.byref(value))
        return None if code else value.value

    def close(self) -> None:
        """Let the library go."""
        self._library.nvmlShutdown()
