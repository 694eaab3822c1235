"""A TensorRT engine from an ONNX graph: parse, check, build, save.

The graph is strongly typed: its element types are the engine's. Nothing here needs a GPU where TensorRT itself does not
(TensorRT-RTX with named compute capabilities).
"""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.build import log, rtx
from edgekit.build.profile import AxisRange, profile_shapes, profile_values
from edgekit.contract import TensorSignature
from edgekit.errors import BuildError
from edgekit.files import atomic_write

_PLUGIN_LAYER = "PLUGIN_V3"
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class EngineBuild:
    """What was built.

    Attributes:
        path: the engine, as TensorRT deserialises it.
        layers: how many layers of each type the parsed network has.
        plugins: how many of its layers are plugins, by the plugin's name.
        outputs: names, element types and shapes of the network's outputs, -1 for a size that varies.
        bytes: of the engine.
        weights_bytes, activation_bytes: memory that TensorRT says it will need; None where it did not say.
        seconds: for parsing and building.
    """

    path: Path
    layers: dict[str, int]
    plugins: dict[str, int]
    outputs: tuple[TensorSignature, ...]
    bytes: int
    weights_bytes: int | None
    activation_bytes: int | None
    seconds: float


def engine_from_onnx(
    model: Path,
    destination: Path,
    *,
    axes: Mapping[str, AxisRange],
    plugin_libraries: Sequence[Path] = (),
    expected_plugins: Mapping[str, int] | None = None,
    compute_capabilities: Sequence[str] = (),
    embed_plugins: bool = False,
    trt: Any = None,
) -> EngineBuild:
    """Build the engine of an ONNX file and write it to `destination` in one step.

    Args:
        axes: for each dynamic axis of the graph's inputs, by its name, the sizes to serve and to optimise for; for an
            input whose values decide shapes, by its name, those values.
        plugin_libraries: where operators that TensorRT does not know come from.
        expected_plugins: how many nodes of each operator must have become plugins. A function body in the graph runs
            where a plugin is not found; with this, that is an error and not a slow engine.
        compute_capabilities: GPUs to build for ("89"); TensorRT-RTX only. Empty: the GPU of this machine.
        embed_plugins: carry the plugin libraries inside the engine.
        trt: the TensorRT module; TensorRT-RTX by default.

    Raises:
        BuildError: the graph does not parse (the node is named), a plugin is missing or refuses, or the build fails.
    """
    trt = trt if trt is not None else rtx.load()
    started = time.monotonic()
    logger = log.logger(trt)
    logger.begin()
    builder = trt.Builder(logger)
    if builder is None:
        raise BuildError("TensorRT must be able to make a builder", logger.first_error() or "it gave no reason")
    # The builder's own registry: another build in this process does not see these libraries.
    for library in plugin_libraries:
        if builder.get_plugin_registry().load_library(str(library)) is None:
            raise BuildError("a plugin library must load", logger.first_error() or f"{library} did not")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        raise _parse_error(parser, plugin_libraries)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    plugins = dict(Counter(_plugin_name(trt, layer) for layer in layers if _type_of(layer) == _PLUGIN_LAYER))
    _check_plugins(plugins, expected_plugins, plugin_libraries)

    config = builder.create_builder_config()
    _set_targets(trt, config, compute_capabilities)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    shapes, values = profile_shapes(inputs, axes), profile_values(inputs, axes)
    if shapes or values:
        profile = builder.create_optimization_profile()
        for name, sizes in shapes.items():
            profile.set_shape(name, *sizes)
        for name, numbers in values.items():
            profile.set_shape_input(name, *numbers)
        config.add_optimization_profile(profile)
    if plugins:
        # Only with it are plugins asked which of their inputs an output is.
        config.set_preview_feature(trt.PreviewFeature.ALIASED_PLUGIN_IO_10_03, True)
        if embed_plugins:
            config.plugins_to_serialize = [str(library) for library in plugin_libraries]
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        refusals = _refusals(plugin_libraries)
        raise BuildError("the engine must build", refusals or logger.first_error() or "TensorRT gave no reason")
    content = bytes(memoryview(plan))
    atomic_write(destination, content)
    return EngineBuild(
        path=destination,
        layers=dict(Counter(map(_type_of, layers))),
        plugins=plugins,
        outputs=tuple(_signature(network.get_output(i)) for i in range(network.num_outputs)),
        bytes=len(content),
        weights_bytes=logger.figure("Total Weights Memory"),
        activation_bytes=logger.figure("Total Activation Memory"),
        seconds=time.monotonic() - started,
    )


def _signature(tensor: Any) -> TensorSignature:
    dtype = str(tensor.dtype).rsplit(".", 1)[-1]
    return TensorSignature(tensor.name, _DTYPES.get(dtype, dtype.lower()), tuple(tensor.shape))


def _type_of(layer: Any) -> str:
    return str(layer.type).rsplit(".", 1)[-1]


def _plugin_name(trt: Any, layer: Any) -> str:
    layer.__class__ = trt.IPluginV3Layer
    return str(layer.plugin.get_capability_interface(trt.PluginCapabilityType.CORE).plugin_name)


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


def _set_targets(trt: Any, config: Any, capabilities: Sequence[str]) -> None:
    if not capabilities:
        return
    members = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    known = [name.removeprefix("SM") for name in members if name.startswith("SM")]
    if not known:
        raise BuildError("this TensorRT builds for the machine's own GPU", f"{', '.join(capabilities)} was asked for")
    for capability in capabilities:
        if capability not in known:
            raise BuildError(
                "an engine can be built for GPUs that this TensorRT knows",
                f"compute capability {capability} is not one of {', '.join(known)}",
            )
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(members[f"SM{capability}"], index)
