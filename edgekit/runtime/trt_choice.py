"""Which engine of a bundle this machine can run, and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from edgekit.errors import BundleError, EdgekitError, SessionError
from edgekit.runtime.cuda import Cuda
from edgekit.runtime.cuda_library import load_cuda
from edgekit.runtime.engine_compatibility import Machine, check_engine, package

if TYPE_CHECKING:
    from edgekit.bundle import Bundle, EngineEntry

#: The Python module of each backend; both have the same execution API.
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


class Chosen(NamedTuple):
    """An engine that fits, the module that runs it, and the CUDA runtime."""

    entry: EngineEntry
    trt: Any
    cuda: Cuda

    def description(self, what: str = "engine") -> str:
        """Versions and engine, for people."""
        entry, trt, cuda = self
        return f"{entry.backend} {trt.__version__}, CUDA {cuda.runtime_version()}, {what} {entry.name}"


def chosen_engine(bundle: Bundle, check: Callable[[EngineEntry], None]) -> Chosen:
    """The newest engine that this machine can run and that `check` does not refuse.

    Raises:
        SessionError: TensorRT or the CUDA runtime is missing, or what `check` raises.
        BundleError: the bundle has no engine, or none for this machine: each with its reason.
    """
    if not bundle.manifest.engines:
        raise BundleError(
            "decoding with TensorRT needs an engine in the bundle",
            f"{bundle.path} has none",
            f"edgekit build {bundle.path} --device DEVICE",
        )
    refusals: list[EdgekitError] = []
    for entry in reversed(bundle.manifest.engines):
        try:
            trt = _module(entry)
            cuda = load_cuda()
            gpu = cuda.gpu()
            machine = Machine(
                compute_capability=gpu.compute_capability if gpu else None,
                backend=entry.backend,
                backend_version=str(trt.__version__),
                cuda_version=cuda.driver_version(),
            )
            check_engine(entry, machine, bundle.path)
            check(entry)
        except EdgekitError as error:
            refusals.append(error)
            continue
        return Chosen(entry, trt, cuda)
    first, others = refusals[0], refusals[1:]
    more = "".join(f"; {other.fact}" for other in others)
    raise type(first)(first.rule, first.fact + more, first.next_step) from first


def _module(entry: EngineEntry) -> Any:
    """The TensorRT module that runs an engine. Raises SessionError where it is not installed."""
    name = MODULES.get(entry.backend)
    if name is None:
        raise BundleError(
            f"an engine is one of {', '.join(MODULES)}",
            f"{entry.name} is {entry.backend!r}",
            "build it again with this version of edgekit",
        )
    try:
        module = import_module(name)
        # A stub of the package index has the name alone.
        if not hasattr(module, "Runtime"):
            raise ImportError(f"{name} has no Runtime: it is a placeholder without TensorRT's libraries")
    except (ImportError, OSError) as error:
        raise SessionError(
            f"engine {entry.name} needs {entry.backend} {entry.backend_version}",
            str(error),
            f"pip install {package(entry)} (on a Jetson it comes with JetPack, for the system's own Python)",
        ) from error
    return module
