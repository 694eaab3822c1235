"""One graph of a bundle on its way to an engine: the decoder's, or that of its draft heads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgekit import contract
from edgekit.build.backends import Backend
from edgekit.build.engine_cache import EngineCache, cache_key, graph_digest, link_or_copy
from edgekit.build.job import Job, build_to_dict
from edgekit.build.process import Tick, build_in_process
from edgekit.build.profile import AxisRange, Limits, decoder_profiles, draft_profiles
from edgekit.bundle import Bundle
from edgekit.bundle.manifest import OperatorUse
from edgekit.device.profile import DeviceProfile
from edgekit.errors import BuildError
from edgekit.files import sha256_of

DECODER_ENGINE, DRAFT_ENGINE = "model.engine", "draft.engine"


@dataclass(frozen=True)
class Toolset:
    """What a graph is built with, and for what.

    Attributes:
        options: of `edgekit.build.backends.interface.OPTIONS`.
        library: the plugin library; None where no graph of the bundle needs one.
    """

    backend: Backend
    backend_version: str
    device: DeviceProfile
    options: tuple[str, ...]
    library: Path | None

    @cached_property
    def library_sha256(self) -> str:
        """Of the plugin library, "" without one."""
        return sha256_of(self.library) if self.library is not None else ""


@dataclass(frozen=True)
class GraphBuild:
    """A graph and what decides which engine it becomes.

    Attributes:
        graph: the ONNX file.
        engine: the engine's file name.
        profiles: see `edgekit.build.profile`.
        operators: those of edgekit, all of whose nodes must become plugins.
        sha256: of the graph and its weights; key: of everything that decides what the engine is.
    """

    graph: Path
    engine: str
    profiles: dict[str, dict[str, AxisRange]]
    operators: tuple[OperatorUse, ...]
    sha256: str
    key: str


def decoder_build(bundle: Bundle, limits: Limits, tools: Toolset) -> GraphBuild:
    """The decoder's."""
    manifest = bundle.manifest
    profiles = decoder_profiles(limits, in_place=manifest.cache.kind == contract.CACHE_SHARED)
    graph = manifest.graph
    return _build(bundle, graph.file, graph.data, DECODER_ENGINE, profiles, manifest.operators, tools)


def draft_build(bundle: Bundle, limits: Limits, tools: Toolset) -> GraphBuild | None:
    """That of the draft heads; None where the bundle has none."""
    draft = bundle.manifest.draft
    if draft is None:
        return None
    return _build(bundle, draft.file, draft.data, DRAFT_ENGINE, draft_profiles(limits), (), tools)


def _build(
    bundle: Bundle,
    file: str,
    data: Collection[str],
    engine: str,
    profiles: dict[str, dict[str, AxisRange]],
    operators: tuple[OperatorUse, ...],
    tools: Toolset,
) -> GraphBuild:
    digest = graph_digest(bundle, file, data)
    key = cache_key(
        graph_sha256=digest,
        backend=tools.backend.name,
        backend_version=tools.backend_version,
        compute_capabilities=[tools.device.compute_capability],
        profiles=profiles,
        options=tools.options,
        plugin_sha256=tools.library_sha256 if operators else "",
    )
    return GraphBuild(bundle.file(file), engine, profiles, operators, digest, key)


def engine_of(
    build: GraphBuild,
    tools: Toolset,
    folder: Path,
    *,
    cache: bool,
    rebuild: bool,
    memory_limit_bytes: int | None,
    watch: Callable[[Tick], None],
) -> tuple[dict[str, Any], str]:
    """Put a graph's engine into `folder`, from the cache or built; the facts of its build and where it came from.

    Args:
        cache: whether engines and measured times are looked for and kept in the cache.
        rebuild: build even what is there.

    Raises:
        BuildError, DoesNotFit: see `build_in_process`.
    """
    kept, place = EngineCache(), folder / build.engine
    found = kept.find(build.key) if cache and not rebuild else None
    if found is not None:
        link_or_copy(found[0], place)
        return found[1], "cache"
    timing = None
    if cache and tools.backend.has_timing_cache:
        timing = kept.timing_cache(tools.device.name, tools.backend.name, tools.backend_version)
    targets = (tools.device.compute_capability,) if tools.backend.builds_elsewhere else ()
    built = build_in_process(
        Job(
            model=str(build.graph.resolve()),
            destination=str(place),
            backend=tools.backend.name,
            device_kind=tools.device.kind,
            profiles=build.profiles,
            plugin_libraries=(str(tools.library),) if tools.library is not None and build.operators else (),
            expected_plugins={use.name: use.nodes for use in build.operators} or None,
            compute_capabilities=targets,
            options=tools.options,
            timing_cache=str(timing) if timing is not None else None,
        ),
        memory_limit_bytes=memory_limit_bytes,
        watch=watch,
    )
    facts = build_to_dict(built.build) | {
        "peak_memory_bytes": built.peak_memory_bytes,
        "graph_sha256": build.sha256,
        "path": build.engine,
    }
    check_versions(build.operators, facts)
    if cache:
        kept.store(build.key, place, facts)
    return facts, "built"


def check_versions(operators: Collection[OperatorUse], facts: Mapping[str, Any]) -> None:
    """Refuse an engine whose plugins are of another version than the graph's operators are."""
    wanted = {use.name: str(use.version) for use in operators}
    for use in facts["plugins"]:
        if wanted.get(use["name"], use["version"]) != use["version"]:
            raise BuildError(
                "a plugin must have the version of the operator it stands for",
                f"the graph has {use['name']} version {wanted[use['name']]}, the library version {use['version']}",
                "leave --plugin-library out, so that the library is compiled from this edgekit's sources",
            )
