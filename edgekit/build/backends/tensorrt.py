"""Regular TensorRT, 10.3 to 11: builds for the GPU of the machine that it runs on.

Sources: https://docs.nvidia.com/deeplearning/tensorrt/latest/api/migration/tensorrt-10x-to-11x.html (11 types every
network strongly and has no flags for types), onnx-tensorrt's docs/Changelog.md (which form a parser takes).
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekit.contract import FORM_JETPACK6, FORM_TENSORRT
from edgekit.errors import BuildError

#: The oldest version whose interfaces are used here: that of JetPack 6.
OLDEST = (10, 3)
#: The first version that runs a plugin in the place of a function in the model wherever a node asks for it, and that
#: knows RMSNormalization and RotaryEmbedding.
PLUGIN_OVERRIDE = (10, 15)

INSTALL = {
    "jetson": "TensorRT comes with JetPack: sudo apt install python3-libnvinfer, and make the virtual environment of "
    "edgekit with --system-site-packages",
    "": "pip install --extra-index-url https://pypi.nvidia.com tensorrt (its libraries are not on PyPI)",
}
_FLAGS = {"weight_streaming": "WEIGHT_STREAMING", "refit": "REFIT", "strip": "STRIP_PLAN"}


class TensorRT:
    """See `edgekit.build.backends.interface`."""

    name = "tensorrt"
    builds_elsewhere = False
    has_timing_cache = True

    def load(self, device: str = "") -> Any:
        try:
            trt = importlib.import_module("tensorrt")
        except ImportError as error:
            fact = "it is not installed" if error.name == "tensorrt" else f"it is there without its libraries: {error}"
            raise missing(fact, device) from error
        if not hasattr(trt, "Builder"):
            raise missing("the package `tensorrt` that is installed is a stub without a builder", device)
        if release(trt.__version__) < OLDEST:
            raise BuildError(
                "engines are built with TensorRT 10.3 or newer",
                f"version {trt.__version__} is installed",
                "update to JetPack 6 or newer" if device == "jetson" else INSTALL[""],
            )
        return trt

    def cuda(self) -> str:
        for distribution in metadata.distributions():
            found = re.fullmatch(r"tensorrt[-_]cu(\d+)", distribution.metadata["Name"] or "")
            if found:
                return found[1]
        version = Path("/usr/local/cuda/version.json")  # JetPack's own
        if version.is_file():
            return str(json.loads(version.read_text(encoding="utf-8"))["cuda"]["version"])
        raise BuildError(
            "the CUDA version that TensorRT was made for must be known, to refuse drivers that are too old",
            "neither a package tensorrt-cuNN nor /usr/local/cuda/version.json tells it",
            "install the CUDA toolkit that belongs to this TensorRT",
        )

    def targets(self, trt: Any) -> tuple[str, ...] | None:
        return None

    def forms(self, version: str) -> tuple[str, ...]:
        if release(version) >= PLUGIN_OVERRIDE:
            return FORM_TENSORRT, FORM_JETPACK6
        return (FORM_JETPACK6,)

    def network_flags(self, trt: Any) -> int:
        # EXPLICIT_BATCH is never set: 10 ignores it, 11 does not have it. 11 types strongly with or without its flag.
        flags = getattr(trt, "NetworkDefinitionCreationFlag", None)
        strongly_typed = getattr(flags, "STRONGLY_TYPED", None)
        if strongly_typed is not None:
            return 1 << int(strongly_typed)
        if release(trt.__version__) >= (11, 0):
            return 0
        raise BuildError(
            "an engine is built from a strongly typed network", f"TensorRT {trt.__version__} has no flag for it"
        )

    def set_targets(self, trt: Any, config: Any, capabilities: Sequence[str]) -> None:
        # This machine's GPU is its only target: whoever asks for another has been refused, see `needs_device_kit`.
        pass

    def check_options(self, trt: Any, options: Collection[str]) -> None:
        for option in sorted(options):
            if not hasattr(trt.BuilderFlag, _FLAGS[option]):
                raise BuildError(
                    "an option of the build is one that this TensorRT has",
                    f"TensorRT {trt.__version__} has no {_FLAGS[option]}",
                    f"leave --{option.replace('_', '-')} out",
                )

    def set_options(self, trt: Any, config: Any, options: Collection[str], plugins: bool) -> None:
        self.check_options(trt, options)
        for option in options:
            config.set_flag(getattr(trt.BuilderFlag, _FLAGS[option]))
        aliased = getattr(getattr(trt, "PreviewFeature", None), "ALIASED_PLUGIN_IO_10_03", None)
        if plugins and aliased is not None:
            config.set_preview_feature(aliased, True)


def release(version: str) -> tuple[int, int]:
    """(major, minor) of "10.3.0.26"."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def missing(fact: str, device: str) -> BuildError:
    """The error for a TensorRT that is not there, with how to install it for a kind of device."""
    return BuildError(
        "building an engine for this device needs TensorRT", fact, INSTALL["jetson" if device == "jetson" else ""]
    )


BACKEND = TensorRT()
