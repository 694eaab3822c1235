"""Memory and time of building the engine."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.plan.estimate import Estimate
from edgekit.plan.machine import Machine
from edgekit.plan.model_sizes import ModelSizes

#: Peak anonymous memory of a process that builds with TensorRT-RTX 1.7: what Python and the libraries take, and so
#: many times the engine's weights (`scripts/check-plan --build` measures; docs/planning.md has the table).
BASE_BYTES = 350e6
WEIGHTS_HELD = Estimate(4.0, 2.5, 6.0, "peaks of TensorRT-RTX 1.7 builds")
#: Seconds of one core: to load and compile, per layer, and per byte of weights.
SECONDS_BASE = 0.5
SECONDS_PER_LAYER = 0.2
SECONDS_PER_WEIGHT_BYTE = 8e-9
RTX = "tensorrt-rtx"


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
        BASE_BYTES + factor.value * weight_bytes.value,
        BASE_BYTES + factor.low * weight_bytes.low,
        BASE_BYTES + factor.high * weight_bytes.high,
        basis,
    )
    seconds = None
    if rtx:
        value = SECONDS_BASE + SECONDS_PER_LAYER * sizes.layers + SECONDS_PER_WEIGHT_BYTE * weight_bytes.value
        seconds = Estimate(value, value / 2, value * 3, "builds on two shared x86 cores at 2.6 GHz")
    return BuildCost(device.backend, not rtx, memory, seconds, device.usable_memory_bytes)
