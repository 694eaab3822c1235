"""TensorRT-RTX: builds for RTX GPUs on any x86-64 Linux machine, with or without a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from importlib import metadata
from typing import Any

from edgekit.build import rtx
from edgekit.build.backends.interface import OPTIONS
from edgekit.contract import FORM_JETPACK6, FORM_TENSORRT
from edgekit.errors import BuildError

#: Its packages by the CUDA version that they are for.
_PACKAGES = {"13": ("tensorrt-rtx-cu13", "tensorrt_rtx_cu13"), "12": ("tensorrt-rtx-cu12", "tensorrt_rtx_cu12")}
_FLAGS = {"weight_streaming": "WEIGHT_STREAMING", "refit": "REFIT", "strip": "STRIP_PLAN"}


class TensorRTRTX:
    """See `edgekit.build.backends.interface`."""

    name = "tensorrt-rtx"
    builds_elsewhere = True
    #: Its timing cache has been without effect since 1.0 and deprecated since 1.2; what it keeps instead is a cache of
    #: compiled kernels at run time (https://docs.nvidia.com/deeplearning/tensorrt-rtx/1.4/getting-started/release-notes-1/1.1.html).
    has_timing_cache = False

    def load(self, device: str = "") -> Any:
        return rtx.load()

    def cuda(self) -> str:
        for version, names in _PACKAGES.items():
            if any(_is_installed(name) for name in names):
                return version
        raise rtx.missing(f"none of {', '.join(names[0] for names in _PACKAGES.values())} is installed")

    def targets(self, trt: Any) -> tuple[str, ...] | None:
        members = trt.ComputeCapability.__members__
        return tuple(name.removeprefix("SM") for name in sorted(members, key=len) if name.startswith("SM"))

    def forms(self, version: str) -> tuple[str, ...]:
        return FORM_TENSORRT, FORM_JETPACK6

    def network_flags(self, trt: Any) -> int:
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def set_targets(self, trt: Any, config: Any, capabilities: Sequence[str]) -> None:
        if not capabilities:
            return
        known = self.targets(trt) or ()
        for capability in capabilities:
            if capability not in known:
                raise BuildError(
                    "an engine can be built for GPUs that this TensorRT knows",
                    f"compute capability {capability} is not one of {', '.join(known)}",
                    "choose a device that has one of these: edgekit devices list",
                )
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(trt.ComputeCapability.__members__[f"SM{capability}"], index)

    def check_options(self, trt: Any, options: Collection[str]) -> None:
        for option in sorted(options):
            if option in ("refit", "strip") and not _has_driver():
                raise BuildError(
                    f"TensorRT-RTX needs a GPU to build with {option} ({OPTIONS[option]})",
                    "there is no CUDA driver here (libcuda.so.1)",
                    f"leave --{option} out, or build on a machine with an RTX GPU",
                )

    def set_options(self, trt: Any, config: Any, options: Collection[str], plugins: bool) -> None:
        self.check_options(trt, options)
        for option in options:
            config.set_flag(getattr(trt.BuilderFlag, _FLAGS[option]))
        if plugins:
            # Only with it are plugins asked which of their inputs an output is.
            config.set_preview_feature(trt.PreviewFeature.ALIASED_PLUGIN_IO_10_03, True)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


BACKEND = TensorRTRTX()
