"""A TensorRT engine from an ONNX graph: parse, check, build, save.

The graph is strongly typed: its element types are the engine's. Nothing here needs a GPU where TensorRT itself does not
(TensorRT-RTX with named compute capabilities).
"""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.build import log
from edgekit.build.backends import Backend, backend_named
from edgekit.build.monitor import Listener, progress_monitor
from edgekit.build.profile import AxisRange, profile_shapes, profile_values
from edgekit.bundle.engine_entry import InputRange, ShapeProfile
from edgekit.contract import TWO_OF_FOUR, TensorSignature
from edgekit.errors import BuildError
from edgekit.files import atomic_write

_PLUGIN_LAYER = "PLUGIN_V3"
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class BuiltPlugin:
    """A plugin of the engine: what TensorRT's registry found it by, and how many layers are it."""

    name: str
    version: str
    namespace: str
    nodes: int


@dataclass(frozen=True)
class EngineBuild:
    """What was built.

    Attributes:
        path: the engine, as TensorRT deserialises it.
        backend_version: of the TensorRT that built it.
        layers: how many layers of each type the parsed network has.
        plugins: what its plugin layers call, by name.
        profiles: its optimisation profiles, in order.
        outputs: names, element types and shapes of the network's outputs, -1 for a size that varies.
        bytes: of the engine.
        weights_bytes, activation_bytes: memory that TensorRT says it will need; None where it did not say. Of several
            profiles, the activations of the one that needs most.
        seconds: for parsing and building.
        sparse_weights: how many products the builder may give to sparse tensor cores, by 2:4 weights.
    """

    path: Path
    backend_version: str
    layers: dict[str, int]
    plugins: tuple[BuiltPlugin, ...]
    profiles: tuple[ShapeProfile, ...]
    outputs: tuple[TensorSignature, ...]
    bytes: int
    weights_bytes: int | None
    activation_bytes: int | None
    seconds: float
    sparse_weights: int = 0


def engine_from_onnx(
    model: Path,
    destination: Path,
    *,
    profiles: Mapping[str, Mapping[str, AxisRange]] | None = None,
    axes: Mapping[str, AxisRange] | None = None,
    plugin_libraries: Sequence[Path] = (),
    expected_plugins: Mapping[str, int] | None = None,
    compute_capabilities: Sequence[str] = (),
    embed_plugins: bool = False,
    options: Collection[str] = (),
    timing_cache: Path | None = None,
    listen: Listener | None = None,
    backend: Backend | None = None,
    trt: Any = None,
) -> EngineBuild:
    """Build the engine of an ONNX file and write it to `destination`, which appears as a whole.

    Args:
        profiles: by name, in the engine's order: for each dynamic axis of the graph's inputs, by its name, the sizes to
            serve and to optimise for; for an input whose values decide shapes, by its name, those values.
        axes: these of a single profile.
        plugin_libraries: where operators that TensorRT does not know come from.
        expected_plugins: how many nodes of each operator must have become plugins. A function body in the graph runs
            where a plugin is not found; with this, that is an error and not a slow engine.
        compute_capabilities: GPUs to build for ("89"); TensorRT-RTX only. Empty: the GPU of this machine.
        embed_plugins: carry the plugin libraries inside the engine.
        options: of `edgekit.build.backends.interface.OPTIONS`.
        timing_cache: a file that keeps measured times of kernels from one build to the next, where there is such.
        listen: told of the phases of the build.
        backend: TensorRT-RTX by default; trt: its module, where it is loaded already.

    Raises:
        BuildError: the graph does not parse (the node is named), a plugin is missing or refuses, or the build fails.
    """
    backend = backend or backend_named("tensorrt-rtx")
    trt = trt if trt is not None else backend.load()
    started = time.monotonic()
    logger = log.logger(trt)
    logger.begin()
    builder = trt.Builder(logger)
    if builder is None:
        raise BuildError("TensorRT must be able to make a builder", logger.first_error() or "it gave no reason")
    registry = builder.get_plugin_registry()
    # The builder's own registry: another build in this process does not see these libraries.
    for library in plugin_libraries:
        if registry.load_library(str(library)) is None:
            raise BuildError("a plugin library must load", logger.first_error() or f"{library} did not")
    network = builder.create_network(backend.network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if listen is not None:
        listen("start", "Parsing", 0)
    if not parser.parse_from_file(str(model)):
        raise _parse_error(parser, plugin_libraries)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    _let_attention_decompose(trt, layers)
    plugins = _plugins(trt, layers)
    _check_plugins({use.name: use.nodes for use in plugins}, expected_plugins, plugin_libraries)

    config = builder.create_builder_config()
    backend.set_targets(trt, config, compute_capabilities)
    backend.set_options(trt, config, options, bool(plugins))
    sparse = sum(layer.name.endswith(TWO_OF_FOUR) for layer in layers)
    if sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    built_profiles = _add_profiles(builder, config, network, profiles if profiles is not None else {"all": axes or {}})
    if plugins and embed_plugins:
        config.plugins_to_serialize = [str(library) for library in plugin_libraries]
    monitor = progress_monitor(trt, listen) if listen is not None else None
    if monitor is not None:
        config.progress_monitor = monitor
    if timing_cache is not None and backend.has_timing_cache:
        known = timing_cache.read_bytes() if timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        refusals = _refusals(plugin_libraries)
        raise BuildError("the engine must build", refusals or logger.first_error() or "TensorRT gave no reason")
    content = memoryview(plan)
    atomic_write(destination, content)
    if timing_cache is not None and backend.has_timing_cache:
        atomic_write(timing_cache, memoryview(config.get_timing_cache().serialize()))
    return EngineBuild(
        path=destination,
        backend_version=str(trt.__version__),
        layers=dict(Counter(map(_type_of, layers))),
        plugins=plugins,
        profiles=built_profiles,
        outputs=tuple(_signature(network.get_output(i)) for i in range(network.num_outputs)),
        bytes=content.nbytes,
        weights_bytes=logger.figure("Total Weights Memory"),
        activation_bytes=logger.figure("Total Activation Memory"),
        seconds=time.monotonic() - started,
        sparse_weights=sparse,
    )


def _let_attention_decompose(trt: Any, layers: Sequence[Any]) -> None:
    """Let attention that no dedicated kernel takes (float32, odd head sizes) become products and a softmax."""
    for layer in layers:
        if _type_of(layer) == "ATTENTION_INPUT":
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def _add_profiles(
    builder: Any, config: Any, network: Any, profiles: Mapping[str, Mapping[str, AxisRange]]
) -> tuple[ShapeProfile, ...]:
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    made = []
    for name, axes in profiles.items():
        shapes, values = profile_shapes(inputs, axes), profile_values(inputs, axes)
        if not shapes and not values:
            continue
        profile = builder.create_optimization_profile()
        for tensor, sizes in shapes.items():
            profile.set_shape(tensor, *sizes)
        for tensor, numbers in values.items():
            profile.set_shape_input(tensor, *numbers)
        config.add_optimization_profile(profile)
        ranges = [tuple(InputRange(key, *each) for key, each in found.items()) for found in (shapes, values)]
        made.append(ShapeProfile(name, *ranges))
    return tuple(made)


def _signature(tensor: Any) -> TensorSignature:
    dtype = str(tensor.dtype).rsplit(".", 1)[-1]
    return TensorSignature(tensor.name, _DTYPES.get(dtype, dtype.lower()), tuple(tensor.shape))


def _type_of(layer: Any) -> str:
    return str(layer.type).rsplit(".", 1)[-1]


def _plugins(trt: Any, layers: Sequence[Any]) -> tuple[BuiltPlugin, ...]:
    found: Counter[tuple[str, str, str]] = Counter()
    for layer in layers:
        if _type_of(layer) == _PLUGIN_LAYER:
            layer.__class__ = trt.IPluginV3Layer
            core = layer.plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
            found[str(core.plugin_name), str(core.plugin_version), str(core.plugin_namespace)] += 1
    return tuple(BuiltPlugin(*key, nodes) for key, nodes in sorted(found.items()))


def _parse_error(parser: Any, libraries: Sequence[Path]) -> BuildError:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    refusals = _refusals(libraries)
    if not errors:
        return BuildError("TensorRT must be able to parse the graph", refusals or "it gave no reason")
    first = errors[0]
    place = f"node {first.node_name() or first.node()} ({first.node_operator()})"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return BuildError(
        "TensorRT must be able to parse the graph",
        f"{place}: {refusals or first.desc().strip().splitlines()[0]}{more}",
        "load the plugin library for an operator of edgekit; for another, export the form that this TensorRT knows",
    )


def _refusals(libraries: Sequence[Path]) -> str:
    """What edgekit's plugins said against the graph since they were last asked."""
    lines: list[str] = []
    for library in libraries:
        take = getattr(ctypes.CDLL(str(library)), "edgekit_take_refusals", None)
        if take is not None:
            take.restype = ctypes.c_char_p
            lines += take().decode().splitlines()
    return "; ".join(dict.fromkeys(lines))


def _check_plugins(found: dict[str, int], expected: Mapping[str, int] | None, libraries: Sequence[Path]) -> None:
    for name, count in (expected or {}).items():
        if found.get(name, 0) != count:
            raise BuildError(
                "every node of an operator of edgekit must become a plugin",
                f"{found.get(name, 0)} of {count} {name} nodes did"
                + ("" if libraries else ", and no plugin library was given"),
                "compile the library (edgekit.build.plugin_library) for this TensorRT and give it to the build",
            )
