"""What tests on a real GPU need: whether it is there, and what builds engines for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.build.backends import Backend, backend_named
from edgekit.build.bundle_engine import BuildRequest
from edgekit.build.plugin_library import Toolchain, plugin_library
from edgekit.device.profile import device_names, device_profile
from edgekit.errors import BuildError, EdgekitError
from edgekit.runtime.cuda import Cuda, Gpu
from edgekit.runtime.cuda_library import load_cuda

if TYPE_CHECKING:
    from tests.plugins.device_library import Kernels


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
def no_kernels() -> str | None:
    """Why the operators' kernels cannot be called on a GPU here, or None."""
    from tests.plugins.device_library import missing_library

    return no_gpu() or missing_library(gpu().compute_capability)


def kernels() -> Kernels:
    """The operators' launchers for this GPU."""
    from tests.plugins.device_library import Kernels

    return Kernels(gpu().compute_capability)


@cache
def no_tensorrt() -> str | None:
    """Why no engine can be built and run here, or None."""
    if (reason := no_gpu()) is not None:
        return reason
    try:
        targets = backend().targets(tensorrt())
    except EdgekitError as error:
        return f"no TensorRT for this GPU: {error.fact}"
    capability = gpu().compute_capability
    if targets is not None and capability not in targets:
        return f"no TensorRT for this GPU: {backend().name} does not build for compute capability {capability}"
    return None


def cuda() -> Cuda:
    return load_cuda()


def gpu() -> Gpu:
    found = load_cuda().gpu()
    assert found is not None
    return found


@cache
def backend() -> Backend:
    """What builds for this GPU: TensorRT where it is installed, else TensorRT-RTX. Raises BuildError without either."""
    try:
        found = backend_named("tensorrt")
        found.load()
    except BuildError:
        found = backend_named("tensorrt-rtx")
        found.load()
    return found


def tensorrt() -> Any:
    """Its module."""
    return backend().load()


def form() -> str:
    """The form of bundles that is meant for it."""
    return backend().forms(str(tensorrt().__version__))[0]


def build_request(**limits: int) -> BuildRequest:
    """An engine for this GPU; of devices with the same compute capability, the first stands for it."""
    capability = gpu().compute_capability
    profiles = [device_profile(name) for name in device_names()]
    same = [each for each in profiles if each.compute_capability == capability and backend().name in each.backends]
    if not same:
        raise BuildError("an engine is built for a known device", f"none has compute capability {capability}")
    return BuildRequest(same[0], limits, backend=backend().name)


@cache
def library() -> Path:
    """The plugin library, compiled for this GPU. Raises BuildError where nvcc or TensorRT's headers are missing."""
    return plugin_library((gpu().compute_capability,), Toolchain.found())
