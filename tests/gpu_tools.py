"""What tests on a real GPU need: whether it is there, and what builds engines for it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from edgekit.build.plugin_library import Toolchain, plugin_library
from edgekit.errors import EdgekitError
from edgekit.runtime.cuda import Cuda, Gpu
from edgekit.runtime.cuda_library import load_cuda


@cache
def no_gpu() -> str | None:
    """Why nothing can run on a GPU here, or None."""
    try:
        if load_cuda().gpu() is None:
            return f"no GPU: {load_cuda().name} finds no device, or no driver that knows its version"
    except EdgekitError as error:
        return f"no GPU: {error.fact}"
    return None


@cache
def no_tensorrt() -> str | None:
    """Why no engine can be built and run here, or None."""
    if (reason := no_gpu()) is not None:
        return reason
    try:
        tensorrt()
    except EdgekitError as error:
        return f"no TensorRT for this GPU: {error.fact}"
    return None


def cuda() -> Cuda:
    return load_cuda()


def gpu() -> Gpu:
    found = load_cuda().gpu()
    assert found is not None
    return found


@cache
def tensorrt() -> Any:
    """The module that builds for this GPU: TensorRT where it is installed, else TensorRT-RTX."""
    try:
        module = import_module("tensorrt")
        if hasattr(module, "Builder"):
            return module
    except (ImportError, OSError):
        pass
    from edgekit.build import rtx

    return rtx.load()


@cache
def library() -> Path:
    """The plugin library, compiled for this GPU. Raises BuildError where nvcc or TensorRT's headers are missing."""
    return plugin_library((gpu().compute_capability,), Toolchain.found())
