"""TensorRT-RTX: builds for RTX GPUs on any x86-64 Linux machine, with or without a GPU.

The package's ONNX parser opens `libtensorrt_rtx.so`, but the package holds only `libtensorrt_rtx.so.1`; without help,
the first node that is a plugin ends the process. The libraries are therefore loaded through a directory of links that
has both names; the parser looks for its sibling in the directory that it was loaded from.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import importlib.util
import shutil
import tempfile
from collections.abc import Collection, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekit.build.backends.interface import OPTIONS
from edgekit.contract import FORM_JETPACK6, FORM_TENSORRT
from edgekit.errors import BuildError

#: What `pip install` knows it by, for CUDA 13.
PACKAGE = "tensorrt-rtx-cu13"
#: Packages of other CUDA versions, by the CUDA version.
_PACKAGES = {"13": ("tensorrt-rtx-cu13", "tensorrt_rtx_cu13"), "12": ("tensorrt-rtx-cu12", "tensorrt_rtx_cu12")}
_LIBRARIES = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")


@cache
def load() -> Any:
    """The module `tensorrt_rtx`, fit to parse graphs with plugins. Needs no GPU to build engines.

    Raises:
        BuildError: the package is not installed, or without its libraries.
    """
    libraries = _libraries()
    links = Path(tempfile.mkdtemp(prefix="edgekit-tensorrt-"))
    # The parser follows its link when it meets the first plugin, so the directory stays as long as the process.
    atexit.register(shutil.rmtree, links, ignore_errors=True)
    for library in libraries.glob("*.so.*"):
        (links / library.name).symlink_to(library)
        (links / (library.name.split(".so")[0] + ".so")).symlink_to(library)
    try:
        for name in _LIBRARIES:
            ctypes.CDLL(str(links / name))
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError) as error:
        raise _missing(str(error)) from error


def _libraries() -> Path:
    """The directory of the package's libraries."""
    found = importlib.util.find_spec("tensorrt_rtx_libs")
    if importlib.util.find_spec("tensorrt_rtx") is None:
        regular = importlib.util.find_spec("tensorrt") is not None
        raise _missing("it is not installed" + (" (`tensorrt` is, which is another product)" if regular else ""))
    if found is None or not found.submodule_search_locations:
        raise _missing("tensorrt_rtx is installed without its libraries (tensorrt_rtx_libs)")
    folder = Path(next(iter(found.submodule_search_locations)))
    absent = [name for name in _LIBRARIES if not (folder / name).is_file()]
    if absent:
        raise _missing(f"{folder} has no {absent[0]}")
    return folder


def _missing(fact: str) -> BuildError:
    return BuildError(
        "building an engine for an RTX GPU needs TensorRT-RTX", fact, f"pip install {PACKAGE} (x86-64 Linux)"
    )


class TensorRTRTX:
    """See `edgekit.build.backends.interface`."""

    name = "tensorrt-rtx"
    #: Its timing cache has been without effect since 1.0 and deprecated since 1.2; what it keeps instead is a cache of
    #: compiled kernels at run time (https://docs.nvidia.com/deeplearning/tensorrt-rtx/1.4/getting-started/release-notes-1/1.1.html).
    has_timing_cache = False

    def load(self, device: str = "") -> Any:
        return load()

    def cuda(self) -> str:
        for version, names in _PACKAGES.items():
            if any(_is_installed(name) for name in names):
                return version
        raise _missing(f"none of {', '.join(names[0] for names in _PACKAGES.values())} is installed")

    def targets(self, trt: Any) -> tuple[str, ...] | None:
        members = trt.ComputeCapability.__members__
        return tuple(name.removeprefix("SM") for name in sorted(members, key=len) if name.startswith("SM"))

    def forms(self, trt: Any) -> tuple[str, ...]:
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

    def set_options(self, trt: Any, config: Any, options: Collection[str], plugins: bool) -> None:
        for option in sorted(options):
            if option in ("refit", "strip") and not _has_driver():
                raise BuildError(
                    f"TensorRT-RTX needs a GPU to build with {option} ({OPTIONS[option]})",
                    "there is no CUDA driver here (libcuda.so.1)",
                    f"leave --{option} out, or build on a machine with an RTX GPU",
                )
        flags = {"weight_streaming": "WEIGHT_STREAMING", "refit": "REFIT", "strip": "STRIP_PLAN"}
        for option in options:
            config.set_flag(getattr(trt.BuilderFlag, flags[option]))
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
