"""Memory and time of building the engine: the one model of it, for `edgekit plan` and for `edgekit build`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.device.profile import DeviceProfile
from edgekit.plan.estimate import Estimate
from edgekit.plan.machine import RTX

#: Fitted to builds of TensorRT-RTX 1.7 (docs/planning.md): memory of the process without a graph, per decoder layer and
#: per byte of weights; seconds without a graph, per layer and profile, and per byte of weights.
BASE_MEMORY_BYTES = 235e6
MEMORY_PER_LAYER_BYTES = 15e6
MEMORY_PER_WEIGHT_BYTE = 3.1
BASE_SECONDS = 1.0
SECONDS_PER_LAYER_AND_PROFILE = 0.15
SECONDS_PER_WEIGHT_BYTE = 2.2e-9
#: What an engine is larger than its weights by.
BASE_ENGINE_BYTES = 3e6
ENGINE_PER_LAYER_BYTES = 1.33e6
ENGINE_SPREAD = 0.2

#: Around them: builds are within 12 % of the memory; TensorRT itself was not measured.
BELOW, ABOVE_RTX, ABOVE_TENSORRT = 0.25, 0.25, 1.0
_MEMORY = "peaks of TensorRT-RTX 1.7 builds"
_SECONDS = "builds on two x86 cores at 2.6 GHz with nothing else to do"
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
        engine: bytes of the file.
        available: bytes that the device leaves to it, if it runs there.
    """

    backend: str
    on_device: bool
    memory: Estimate
    seconds: Estimate | None
    engine: Estimate
    available: int

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "backend": self.backend,
            "on_device": self.on_device,
            "memory": self.memory.facts(),
            "seconds": self.seconds.facts() if self.seconds else None,
            "engine": self.engine.facts(),
        }


def build_cost(
    device: DeviceProfile, backend: str, layers: int, weight_bytes: Estimate, profiles: int = PROFILES
) -> BuildCost:
    """Cost of the build that `edgekit build --device` would make with that backend and so many shape profiles."""
    rtx = backend == RTX
    held = BASE_MEMORY_BYTES + MEMORY_PER_LAYER_BYTES * layers
    above = ABOVE_RTX if rtx else ABOVE_TENSORRT
    memory = Estimate(
        held + MEMORY_PER_WEIGHT_BYTE * weight_bytes.value,
        (1 - BELOW) * (held + MEMORY_PER_WEIGHT_BYTE * weight_bytes.low),
        (1 + above) * (held + MEMORY_PER_WEIGHT_BYTE * weight_bytes.high),
        _MEMORY if rtx else f"{_MEMORY}; TensorRT itself was not measured, a rival reports 3 to 4 times the parameters",
    )
    return BuildCost(
        backend=backend,
        on_device=not rtx,
        memory=memory,
        seconds=_seconds(layers * profiles, weight_bytes) if rtx else None,
        engine=_engine(layers, weight_bytes),
        available=device.usable_memory_bytes,
    )


def _engine(layers: int, weight_bytes: Estimate) -> Estimate:
    whole = weight_bytes.plus(BASE_ENGINE_BYTES + ENGINE_PER_LAYER_BYTES * layers)
    low, high = whole.low * (1 - ENGINE_SPREAD), whole.high * (1 + ENGINE_SPREAD)
    return Estimate(whole.value, low, high, "weights, and kernels for each layer")


def _seconds(layers_and_profiles: int, weight_bytes: Estimate) -> Estimate:
    """Half to three times what two idle cores take."""
    idle = weight_bytes.scaled(SECONDS_PER_WEIGHT_BYTE).plus(
        BASE_SECONDS + SECONDS_PER_LAYER_AND_PROFILE * layers_and_profiles, _SECONDS
    )
    return Estimate(idle.value, idle.low / 2, idle.high * 3, _SECONDS)
