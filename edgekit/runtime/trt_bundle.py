"""The engine of a bundle that this machine can run, opened as a session."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgekit import contract
from edgekit.errors import BundleError, EdgekitError, SessionError
from edgekit.runtime.cuda import Cuda
from edgekit.runtime.cuda_library import load_cuda
from edgekit.runtime.engine_compatibility import (
    Machine,
    RegisteredPlugin,
    check_engine,
    check_engine_files,
    check_plugins,
    package,
)
from edgekit.runtime.trt_engine import open_engine
from edgekit.runtime.trt_session import TrtSession

if TYPE_CHECKING:
    from edgekit.bundle import Bundle, EngineEntry

#: The Python module of each backend; both have the same execution API.
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def open_session(
    bundle: Bundle, *, threads: int | None = None, capacity: int | None = None, operators: str = "auto"
) -> TrtSession:
    """A session over the newest engine of the bundle that this machine can run.

    Args:
        threads: of the CPU; decoding with TensorRT uses none to speak of.
        operators: "auto" or "native": in an engine, custom operators are plugins.

    Raises:
        SessionError: TensorRT, the CUDA runtime or a library is missing; the context is too long for the engines; or
            `operators` asks for what an engine does not have.
        BundleError: the bundle has no engine, none for this machine, or a damaged one: each with its reason.
        DoesNotFit: memory ran out.
    """
    if operators == "functions":
        raise SessionError(
            "in an engine, custom operators are what they were when it was built",
            "standard operators were asked for",
            "leave --operators out, or choose --backend cpu",
        )
    entry, trt, cuda = _chosen(bundle, capacity)
    check_engine_files(bundle, entry)
    libraries = [bundle.file(name) for name in dict.fromkeys(plugin.library for plugin in entry.plugins)]
    engine = open_engine(trt, bundle.file(entry.file), libraries)
    cache = bundle.manifest.cache
    try:
        check_plugins(entry, _registered(engine.runtime), bundle.path)
        return TrtSession(
            engine,
            cuda,
            cache_kind=cache.kind,
            capacity_limit=min(cache.capacity_limit, entry.max_kv_cache_capacity),
            capacity=capacity,
            mask_of_slots=_mask_of_slots(bundle),
            description=f"{entry.backend} {trt.__version__}, CUDA {cuda.runtime_version()}, engine {entry.name}",
        )
    except BaseException:
        engine.close()
        raise


def _chosen(bundle: Bundle, capacity: int | None) -> tuple[EngineEntry, Any, Cuda]:
    """The newest engine that this machine can run and that holds `capacity` tokens; its module and CUDA."""
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
            _check_capacity(entry, capacity, bundle)
        except EdgekitError as error:
            refusals.append(error)
            continue
        return entry, trt, cuda
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


def _check_capacity(entry: EngineEntry, capacity: int | None, bundle: Bundle) -> None:
    if capacity is not None and capacity > entry.max_kv_cache_capacity:
        raise SessionError(
            "a context must fit into the engine's",
            f"{capacity} tokens were asked for, {entry.name} holds {entry.max_kv_cache_capacity}",
            f"choose --max-context {entry.max_kv_cache_capacity} or less, or build a larger one: "
            f"edgekit build {bundle.path} --device {entry.device or 'DEVICE'} --help",
        )


def _mask_of_slots(bundle: Bundle) -> bool:
    """Whether the graph says that its attention mask may be longer than the tokens."""
    inputs = {each["name"]: each["shape"] for each in bundle.manifest.graph.inputs}
    return bool(inputs.get(contract.ATTENTION_MASK, ["", ""])[-1] == contract.AXIS_SLOTS)


def _registered(runtime: Any) -> list[RegisteredPlugin]:
    """The plugins that a runtime finds."""
    registry = runtime.get_plugin_registry()
    return [
        RegisteredPlugin(creator.name, creator.plugin_version, creator.plugin_namespace)
        for creator in registry.all_creators
    ]
