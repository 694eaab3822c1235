"""Memory and time of building the engine."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.build.estimate import (
    BASE_MEMORY_BYTES,
    BASE_SECONDS,
    MEMORY_PER_LAYER_BYTES,
    MEMORY_PER_WEIGHT_BYTE,
    SECONDS_PER_LAYER_AND_PROFILE,
)
from edgekit.plan.estimate import Estimate
from edgekit.plan.machine import RTX, Machine
from edgekit.plan.model_sizes import ModelSizes

#: Around what `edgekit build` reckons: builds of `scripts/check-plan` are within 12 % of it (a tiny one 20 %), and
#: TensorRT itself was not measured (docs/planning.md has the table).
BELOW, ABOVE_RTX, ABOVE_TENSORRT = 0.25, 0.25, 1.0
#: One profile for prompts and one for decoding.
PROFILES = 2


@dataclass(frozen=True)
class BuildCost:
    """What a build takes.

    Attributes:
        on_device: whether it must run on the device itself: TensorRT-RTX builds for a named GPU without having it,
            TensorRT only for the GPU that it runs on.
        memory: peak bytes. TensorRT on a device whose GPU shares the memory also holds candidates' weights there.
        seconds: None where it was never measured.
        available: bytes that the device leaves to it, if it runs there.
    """

    backend: str
    on_device: bool
    memory: Estimate
    seconds: Estimate | None
    available: int


def build_cost(sizes: ModelSizes, machine: Machine, weight_bytes: Estimate) -> BuildCost:
    """Cost of the build that `edgekit build --device` would make."""
    device = machine.device
    rtx = device.backend == RTX
    held = BASE_MEMORY_BYTES + MEMORY_PER_LAYER_BYTES * sizes.layers
    above = ABOVE_RTX if rtx else ABOVE_TENSORRT
    basis = "peaks of TensorRT-RTX 1.7 builds"
    memory = Estimate(
        held + MEMORY_PER_WEIGHT_BYTE * weight_bytes.value,
        (1 - BELOW) * (held + MEMORY_PER_WEIGHT_BYTE * weight_bytes.low),
        (1 + above) * (held + MEMORY_PER_WEIGHT_BYTE * weight_bytes.high),
        basis if rtx else f"{basis}; TensorRT itself was not measured, a rival reports 3 to 4 times the parameters",
    )
    seconds = None
    if rtx:
        value = BASE_SECONDS + SECONDS_PER_LAYER_AND_PROFILE * sizes.layers * PROFILES
        seconds = Estimate(value, value / 2, value * 3, "builds on two x86 cores at 2.6 GHz with nothing else to do")
    return BuildCost(device.backend, not rtx, memory, seconds, device.usable_memory_bytes)
