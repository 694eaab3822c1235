"""What a build will take, before it starts: from what was measured of others, so good to a factor of two."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.build.preflight import weight_bytes
from edgekit.bundle import Bundle

#: Fitted to TensorRT-RTX 1.7 builds of tiny models and of SmolLM2-135M on two cores (docs/engines.md):
#: memory of the process without a graph, per decoder layer and per byte of weights; seconds per layer and profile.
BASE_MEMORY_BYTES = 250_000_000
MEMORY_PER_LAYER_BYTES = 18_700_000
MEMORY_PER_WEIGHT_BYTE = 3.0
BASE_SECONDS = 2.0
SECONDS_PER_LAYER_AND_PROFILE = 0.3


@dataclass(frozen=True)
class BuildEstimate:
    """Seconds, bytes of memory of the build process at the peak, bytes of the engine.

    `measured` tells whether the seconds are those of an earlier build of the same graph here.
    """

    seconds: float
    peak_memory_bytes: int
    engine_bytes: int
    measured: bool


def estimate_build(bundle: Bundle, profiles: int, seconds_before: float | None = None) -> BuildEstimate:
    """Estimate a build with so many optimisation profiles, on a machine with two idle cores."""
    manifest = bundle.manifest
    weights = weight_bytes(bundle)
    # A draft graph is built after the decoder's, in a process of its own; it is about as large as a layer.
    graphs = 1 if manifest.draft is None else 2
    seconds = BASE_SECONDS * graphs + SECONDS_PER_LAYER_AND_PROFILE * manifest.model.layers * profiles
    return BuildEstimate(
        seconds=seconds_before if seconds_before is not None else seconds,
        peak_memory_bytes=int(
            BASE_MEMORY_BYTES + MEMORY_PER_LAYER_BYTES * manifest.model.layers + MEMORY_PER_WEIGHT_BYTE * weights
        ),
        engine_bytes=int(1.1 * weights),
        measured=seconds_before is not None,
    )
