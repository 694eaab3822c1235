"""A device in one of its power modes, and what edgekit can do on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches

from edgekit.contract import FORM_JETPACK6, FORM_TENSORRT
from edgekit.device.profile import DeviceProfile, PowerMode, Software
from edgekit.errors import DeviceError
from edgekit.plan.storage import DTYPES

RTX = "tensorrt-rtx"
#: The first TensorRT with an in-place cache of keys and values (rule `lower_attention_in_place`).
IN_PLACE_FROM = (10, 15)
#: The oldest TensorRT that a form is made for.
OLDEST = (10, 3)
#: Products of 4-bit and 8-bit weights with half-precision activations are computed in half precision.
_COMPUTED_AS = {"fp32": "fp32", "fp16": "fp16", "int8": "fp16", "int4": "fp16"}


@dataclass(frozen=True)
class Machine:
    """A device in a power mode; None where its profile does not say."""

    device: DeviceProfile
    mode: PowerMode

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """Of memory, peak."""
        return self.mode.memory_bandwidth_bytes_per_s or self.device.memory_bandwidth_bytes_per_s

    @property
    def form(self) -> str:
        """What `edgekit export --form` makes for it: by its newest TensorRT; the newest form where that is not told."""
        if self.device.backend == RTX or not self._releases or self._newest >= IN_PLACE_FROM:
            return FORM_TENSORRT
        return FORM_JETPACK6

    @property
    def older_releases(self) -> list[str]:
        """Names of its releases whose TensorRT has no cache in place."""
        if self.device.backend == RTX:
            return []
        return [each.name for each in self._releases if _version(each.tensorrt) < IN_PLACE_FROM]

    @property
    def _releases(self) -> list[Software]:
        """Those of the backend that builds for it; another's versions tell nothing of this one."""
        return [each for each in self.device.software if each.backend == self.device.backend]

    @property
    def _newest(self) -> tuple[int, ...]:
        return _version(self._releases[-1].tensorrt)

    @property
    def version_without_form(self) -> str | None:
        """Its newest TensorRT, if edgekit exports nothing for it."""
        if self.device.backend == RTX or not self._releases or self._newest >= OLDEST:
            return None
        return self._releases[-1].tensorrt

    @property
    def caches_in_place(self) -> bool:
        """Whether keys and values are written in place there (factors always are)."""
        return self.form == FORM_TENSORRT

    @property
    def gpu_clock_hz(self) -> float | None:
        """In this mode."""
        return self.mode.gpu_clock_hz or self.device.gpu_clock_hz

    def peak_ops_per_s(self, dtype: str) -> float | None:
        """Peak of products with weights of that type, at this mode's clock and powered multiprocessors."""
        peak = self.device.peak_ops_per_s.get(_COMPUTED_AS[dtype])
        if peak is None:
            return None
        if self.mode.gpu_clock_hz and self.device.gpu_clock_hz:
            peak *= self.mode.gpu_clock_hz / self.device.gpu_clock_hz
        if self.mode.streaming_multiprocessors:
            peak *= self.mode.streaming_multiprocessors / self.device.streaming_multiprocessors
        return peak


def released(device: DeviceProfile, software: Software) -> DeviceProfile:
    """The device with one release of those that run on it, whose TensorRT builds for it."""
    return replace(device, backends=(software.backend,), software=(software,))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def machine(device: DeviceProfile, mode: str | None = None) -> Machine:
    """The device in the named power mode, or in the fastest: the profile's figures are those of its largest mode.

    Raises:
        DeviceError: it has no such mode.
    """
    modes = {entry.name: entry for entry in device.power_modes}
    if mode is None:
        return Machine(device, max(modes.values(), key=lambda entry: _speed(device, entry)))
    if mode not in modes:
        near = get_close_matches(mode.upper(), modes, n=3, cutoff=0.3)
        raise DeviceError(
            f"a power mode is one of the device's: {', '.join(modes)}",
            f"{device.name} has no {mode!r}",
            f"did you mean {' or '.join(near)}?" if near else "leave --power-mode out for the fastest",
        )
    return Machine(device, modes[mode])


def _speed(device: DeviceProfile, mode: PowerMode) -> tuple[float, float, float]:
    return (
        mode.memory_bandwidth_bytes_per_s or device.memory_bandwidth_bytes_per_s,
        mode.gpu_clock_hz or device.gpu_clock_hz or 0,
        mode.streaming_multiprocessors or device.streaming_multiprocessors,
    )


def check_dtype(device: DeviceProfile, dtype: str) -> None:
    """DeviceError for weights that the device has no arithmetic for, or that edgekit does not export."""
    both = [name for name in DTYPES if name in device.dtypes]
    if dtype in both:
        return
    if dtype not in device.dtypes:
        raise DeviceError(
            f"weights must be of a type that the device supports: {', '.join(device.dtypes)}",
            f"{device.title} (compute capability {_dotted(device.compute_capability)}) does not support {dtype}",
            f"choose --dtype {', '.join(both)}",
        )
    raise DeviceError(
        f"weights must be of a type that edgekit exports: {', '.join(DTYPES)}",
        f"{dtype} is supported by {device.title}, but not yet by edgekit",
        f"choose --dtype {', '.join(both)}",
    )


def _dotted(capability: str) -> str:
    return f"{capability[:-1]}.{capability[-1]}"
