"""Memory and time of building the engine."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.build.estimate import (
    BASE_MEMORY_BYTES,
    BASE_SECONDS,
    MEMORY_PER_WEIGHT_BYTE,
    SECONDS_PER_LAYER_AND_PROFILE,
)
from edgekit.plan.estimate import Estimate
from edgekit.plan.machine import RTX, Machine
from edgekit.plan.model_sizes import ModelSizes

#: Bytes held at the peak per byte of weights, beyond what the process holds without a model. The usual figure is that
#: of `edgekit build`; the spread is that of `scripts/check-plan` (docs/planning.md has the table).
WEIGHTS_HELD = Estimate(MEMORY_PER_WEIGHT_BYTE, 2.0, 6.0, "peaks of TensorRT-RTX 1.7 builds")
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
    factor = WEIGHTS_HELD
    basis = factor.basis if rtx else f"{factor.basis}; TensorRT itself was not measured, a rival reports 3 to 4 times"
    memory = Estimate(
        BASE_MEMORY_BYTES + factor.value * weight_bytes.value,
        BASE_MEMORY_BYTES + factor.low * weight_bytes.low,
        BASE_MEMORY_BYTES + factor.high * weight_bytes.high,
        basis,
    )
    seconds = None
    if rtx:
        value = BASE_SECONDS + SECONDS_PER_LAYER_AND_PROFILE * sizes.layers * PROFILES
        seconds = Estimate(value, value / 2, value * 3, "builds on two x86 cores at 2.6 GHz with nothing else to do")
    return BuildCost(device.backend, not rtx, memory, seconds, device.usable_memory_bytes)
