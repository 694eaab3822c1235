"""One look at a running device, and what many looks add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Reading:
    """What a device showed at one moment; None for what it does not tell.

    Attributes:
        seconds: on a monotonic clock.
        power_w: of the whole module on a Jetson, of the board on a card.
        temperature_c: of the GPU.
        memory_used_bytes: of the GPU; on a Jetson of the machine, which shares it.
        busy: share of the time in which the GPU worked, 0 to 1.
    """

    seconds: float
    power_w: float | None = None
    temperature_c: float | None = None
    gpu_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    memory_used_bytes: int | None = None
    busy: float | None = None


@dataclass(frozen=True)
class Telemetry:
    """What a device showed while something ran; None for what it does not tell.

    Attributes:
        source: what was read ("NVML, NVIDIA L4", "tegrastats, VDD_IN"); "" where nothing was.
        missing: why nothing was read; "" where something was.
        power_mode: of a Jetson, "MAXN_SUPER"; "" elsewhere, and where it cannot be read.
        readings: how many looks; seconds: from the first to the last.
        energy_j: the power's integral over `seconds`, by the trapezium rule.
    """

    source: str
    missing: str
    power_mode: str = ""
    readings: int = 0
    seconds: float = 0.0
    mean_power_w: float | None = None
    peak_power_w: float | None = None
    energy_j: float | None = None
    peak_temperature_c: float | None = None
    mean_gpu_clock_hz: float | None = None
    least_gpu_clock_hz: float | None = None
    mean_memory_clock_hz: float | None = None
    peak_memory_used_bytes: int | None = None
    mean_busy: float | None = None


def telemetry_from(readings: Sequence[Reading], source: str, power_mode: str = "") -> Telemetry:
    """What readings in the order of time add up to; one reading gives a power but no energy."""
    if not readings:
        return Telemetry(source="", missing=f"{source} gave no reading", power_mode=power_mode)
    powers = [(each.seconds, each.power_w) for each in readings if each.power_w is not None]
    clocks = _known(each.gpu_clock_hz for each in readings)
    memories = [each.memory_used_bytes for each in readings if each.memory_used_bytes is not None]
    energy = _energy_j(powers) if len(powers) > 1 else None
    seconds = powers[-1][0] - powers[0][0] if len(powers) > 1 else 0.0
    return Telemetry(
        source=source,
        missing="",
        power_mode=power_mode,
        readings=len(readings),
        seconds=readings[-1].seconds - readings[0].seconds,
        mean_power_w=energy / seconds if energy is not None and seconds > 0 else _mean([power for _, power in powers]),
        peak_power_w=max((power for _, power in powers), default=None),
        energy_j=energy,
        peak_temperature_c=max(_known(each.temperature_c for each in readings), default=None),
        mean_gpu_clock_hz=_mean(clocks),
        least_gpu_clock_hz=min(clocks, default=None),
        mean_memory_clock_hz=_mean(_known(each.memory_clock_hz for each in readings)),
        peak_memory_used_bytes=max(memories, default=None),
        mean_busy=_mean(_known(each.busy for each in readings)),
    )


def energy_over(readings: Sequence[Reading], start: float, end: float) -> float | None:
    """Joules between two moments, the power taken to change evenly between readings.

    None where the readings, in the order of time, do not reach from `start` to `end`.
    """
    powers = [(each.seconds, each.power_w) for each in readings if each.power_w is not None]
    if len(powers) < 2 or start < powers[0][0] or end > powers[-1][0]:
        return None
    inner = [(seconds, power) for seconds, power in powers if start < seconds < end]
    return _energy_j([(start, _power_at(powers, start)), *inner, (end, _power_at(powers, end))])


def _power_at(powers: Sequence[tuple[float, float]], moment: float) -> float:
    for (before, first), (after, second) in pairwise(powers):
        if before <= moment <= after:
            return first + (second - first) * ((moment - before) / (after - before) if after > before else 0.0)
    raise ValueError(f"no readings around {moment}")


def _energy_j(powers: Sequence[tuple[float, float]]) -> float:
    return sum((after - before) * (first + second) / 2 for (before, first), (after, second) in pairwise(powers))


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
