"""What the builder needs from a TensorRT: how it is loaded, what it builds for, and in what its versions differ."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

#: Options of a build that not every backend has, by their names in a manifest.
OPTIONS = {
    "weight_streaming": "weights may stay in host memory and be copied when they are used",
    "refit": "weights can be replaced in the engine",
    "strip": "weights are left out of the engine, and put in on the device",
}


class Backend(Protocol):
    """A TensorRT. `trt` is the module that `load` gives.

    Attributes:
        name: as device profiles and manifests call it.
        builds_elsewhere: whether it builds for a GPU that is not here; otherwise the device itself must build.
        has_timing_cache: whether its builder measures kernels and can be given what it measured before.
    """

    name: str
    builds_elsewhere: bool
    has_timing_cache: bool

    def load(self, device: str = "") -> Any:
        """The module, imported at the first call.

        Args:
            device: the kind of device profile that the engine is for ("jetson"), to say how to install what is missing.

        Raises:
            BuildError: it is missing, a stub, or too old.
        """

    def cuda(self) -> str:
        """The CUDA version that it was made for ("13.0", or "13" where only that is known).

        Raises:
            BuildError: it cannot be told.
        """

    def targets(self, trt: Any) -> tuple[str, ...] | None:
        """Compute capabilities that it builds for from anywhere; None where only this machine's GPU is built for."""

    def forms(self, version: str) -> tuple[str, ...]:
        """Forms of bundles that this version of it takes, the one meant for it first."""

    def network_flags(self, trt: Any) -> int:
        """What a strongly typed network is created with."""

    def set_targets(self, trt: Any, config: Any, capabilities: Sequence[str]) -> None:
        """Tell the builder what to build for. Raises BuildError for what it cannot."""

    def check_options(self, trt: Any, options: Collection[str]) -> None:
        """Refuse options of OPTIONS that it lacks here. Raises BuildError with the reason."""

    def set_options(self, trt: Any, config: Any, options: Collection[str], plugins: bool) -> None:
        """Set options of OPTIONS, and what plugins need. Raises BuildError as `check_options` does."""
