"""The whole build: bundle → checks → engines, in a process of their own → bundle with the engines in it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.build import preflight
from edgekit.build.backends import Backend
from edgekit.build.engine import EngineBuild
from edgekit.build.engine_cache import EngineCache
from edgekit.build.graph_build import (
    DECODER_ENGINE,
    DRAFT_ENGINE,
    GraphBuild,
    Toolset,
    decoder_build,
    draft_build,
    engine_of,
)
from edgekit.build.job import build_from_dict
from edgekit.build.plugin_library import LIBRARY, plugin_library
from edgekit.build.process import Tick
from edgekit.build.profile import Limits
from edgekit.bundle import Bundle, EngineEntry
from edgekit.bundle.engine_entry import ENGINES, DraftEngine, PluginUse
from edgekit.bundle.extend import engine_record, extend_bundle
from edgekit.bundle.read import check_file, read_manifest
from edgekit.device.host import disk_free_bytes
from edgekit.device.profile import DeviceProfile
from edgekit.errors import BuildError, DoesNotFit
from edgekit.plan.build_cost import BuildCost, build_cost
from edgekit.plan.estimate import Estimate

_NAME = re.compile(r"[a-z0-9][a-z0-9.+_-]*")


@dataclass(frozen=True)
class BuildRequest:
    """What was asked for.

    Attributes:
        device: what to build for.
        limits: of the fields of `Limits`, those that were asked for.
        options: of `edgekit.build.backends.interface.OPTIONS`.
        backend: its name; None for the device's own.
        name: of the engine; None for "sm89-fp16".
        library: a plugin library to use in the place of one compiled here.
        memory_limit_bytes: most memory of the build process; None for what the machine can spare.
        cache: whether engines and measured times are looked for and kept in the cache.
        rebuild: build even what is there.
    """

    device: DeviceProfile
    limits: Mapping[str, int] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    backend: str | None = None
    name: str | None = None
    library: Path | None = None
    memory_limit_bytes: int | None = None
    cache: bool = True
    rebuild: bool = False


@dataclass(frozen=True)
class PreparedBuild:
    """A build that has passed every check and has not begun.

    Attributes:
        draft: the graph of the draft heads; None where the bundle has none.
        planned: what the build will take by the formulas of `edgekit plan`, with the weights that the bundle has.
        seconds_before: how long the last builds of the same graphs took here, together; None when one of them was never
            built.
        same: the bundle's own engine with these cache keys; None when there is none, or it is damaged.
        note: what could not be checked, "" when all was.
    """

    bundle: Bundle
    request: BuildRequest
    name: str
    limits: Limits
    tools: Toolset
    decoder: GraphBuild
    draft: GraphBuild | None
    planned: BuildCost
    seconds_before: float | None
    same: EngineEntry | None
    note: str

    @property
    def backend(self) -> Backend:
        return self.tools.backend

    @property
    def backend_version(self) -> str:
        return self.tools.backend_version

    @property
    def key(self) -> str:
        """The decoder's cache key."""
        return self.decoder.key

    @property
    def graphs(self) -> tuple[GraphBuild, ...]:
        """What is built: the decoder first."""
        return (self.decoder,) if self.draft is None else (self.decoder, self.draft)


def prepared_build(
    bundle: Bundle, request: BuildRequest, say: Callable[[str], None] = lambda text: None
) -> PreparedBuild:
    """Check everything that can be checked before a build; compile the plugin library where the graph needs one.

    Args:
        say: told what takes long.

    Raises:
        BuildError, DoesNotFit, BundleError: see `edgekit.build.preflight`.
    """
    device, manifest = request.device, bundle.manifest
    backend = preflight.chosen_backend(device, request.backend)
    preflight.check_versions(device)
    preflight.check_dtype(bundle, device)
    if preflight.needs_device_kit(device, backend):
        raise preflight.refuse_other_device(device, bundle.path)
    trt = backend.load(device.kind)
    version = str(trt.__version__)
    targets = backend.targets(trt)
    if targets is not None and device.compute_capability not in targets:
        raise BuildError(
            f"{backend.name} {version} builds for compute capability {', '.join(targets)}",
            f"{device.title} has {device.compute_capability}",
            f"build with another backend: --backend {' or '.join(n for n in device.backends if n != backend.name)}",
        )
    preflight.check_form(bundle, backend, trt, device)
    backend.check_options(trt, request.options)
    limits = preflight.served_limits(bundle, device, dict(request.limits))
    notes = (preflight.check_operators(bundle, backend, version), preflight.check_processor(bundle, device))
    planned = planned_build(bundle, device, backend.name)
    _check_disk(bundle, planned)
    cache = EngineCache()
    if request.cache:
        cache.check()
    tools = Toolset(backend, version, device, request.options, _library(bundle, request, say))
    decoder, draft = decoder_build(bundle, limits, tools), draft_build(bundle, limits, tools)
    return PreparedBuild(
        bundle=bundle,
        request=request,
        name=_engine_name(request, backend, bundle),
        limits=limits,
        tools=tools,
        decoder=decoder,
        draft=draft,
        planned=planned,
        seconds_before=_seconds_before(cache, (decoder, draft)) if request.cache else None,
        same=next((e for e in manifest.engines if _is_of(e, decoder, draft) and _is_whole(bundle, e)), None),
        note="; ".join(note for note in notes if note),
    )


def _seconds_before(cache: EngineCache, graphs: Sequence[GraphBuild | None]) -> float | None:
    known = [cache.seconds_before(graph.sha256, len(graph.profiles)) for graph in graphs if graph is not None]
    return sum(seconds for seconds in known if seconds is not None) if None not in known else None


def _is_of(entry: EngineEntry, decoder: GraphBuild, draft: GraphBuild | None) -> bool:
    """Whether an engine is what these graphs become."""
    keys = entry.cache_key, entry.draft.cache_key if entry.draft is not None else None
    return keys == (decoder.key, draft.key if draft is not None else None)


def engine_from_bundle(
    prepared: PreparedBuild,
    *,
    watch: Callable[[Tick], None] = lambda tick: None,
    hashed: Callable[[int], None] | None = None,
) -> tuple[EngineEntry, str]:
    """Build the engine, and that of draft heads, and put them into the bundle, in one step when all is written.

    An engine of the bundle that is damaged is left out of the new one.

    Args:
        watch: told of phases and memory.
        hashed: called with the number of bytes hashed since the last call.

    Returns:
        The bundle's new entry, and where the engines came from: "built" (one of them at least), "cache", or "bundle"
        when they were there.

    Raises:
        BuildError, DoesNotFit, BundleError: the build failed; the bundle is as it was.
    """
    if prepared.same is not None and not prepared.request.rebuild and prepared.same.name == prepared.name:
        return prepared.same, "bundle"
    directory = f"{ENGINES}/{prepared.name}"
    broken = [entry for entry in prepared.bundle.manifest.engines if not _is_whole(prepared.bundle, entry, full=False)]
    without = {directory, *(entry.directory for entry in broken)}
    with extend_bundle(prepared.bundle, without=without, progress=hashed) as extended:
        names = {entry.name for entry in broken}
        extended.manifest["engines"] = [
            each for each in extended.manifest.get("engines", []) if each["name"] not in names
        ]
        folder = extended.path / directory
        folder.mkdir(parents=True, exist_ok=True)
        if prepared.tools.library is not None:
            shutil.copyfile(prepared.tools.library, folder / LIBRARY)
        made = [_engine(prepared, graph, folder, watch) for graph in prepared.graphs]
        entry = _entry(prepared, [facts for facts, _ in made])
        extended.manifest["engines"] = engine_record(extended.manifest, entry.to_dict())
    found = read_manifest(prepared.bundle.path).manifest.engines
    origin = "built" if any(origin == "built" for _, origin in made) else "cache"
    return next(each for each in found if each.name == entry.name), origin


def _engine(
    prepared: PreparedBuild, graph: GraphBuild, folder: Path, watch: Callable[[Tick], None]
) -> tuple[dict[str, Any], str]:
    request = prepared.request
    return engine_of(
        graph,
        prepared.tools,
        folder,
        cache=request.cache,
        rebuild=request.rebuild,
        memory_limit_bytes=request.memory_limit_bytes,
        watch=watch,
    )


def _entry(prepared: PreparedBuild, facts: Sequence[Mapping[str, Any]]) -> EngineEntry:
    """The manifest's entry, from what is known of each graph's build."""
    builds = [build_from_dict({k: v for k, v in each.items() if k not in _ONLY_FACTS}) for each in facts]
    decoder, directory = builds[0], f"{ENGINES}/{prepared.name}"
    limits, device = prepared.limits, prepared.request.device
    draft = None
    if prepared.draft is not None:
        draft = DraftEngine(f"{directory}/{DRAFT_ENGINE}", **_figures(prepared.draft, builds[1], facts[1]))
    return EngineEntry(
        name=prepared.name,
        file=f"{directory}/{DECODER_ENGINE}",
        backend=prepared.backend.name,
        backend_version=decoder.backend_version,
        compute_capabilities=(device.compute_capability,),
        device=device.name,
        cuda=prepared.backend.cuda(),
        dtype=prepared.bundle.manifest.dtype,
        max_batch_size=limits.max_batch_size,
        max_input_len=limits.max_input_len,
        max_kv_cache_capacity=limits.max_kv_cache_capacity,
        plugins=tuple(
            PluginUse(
                use.name, use.version, use.namespace, use.nodes, f"{directory}/{LIBRARY}", prepared.tools.library_sha256
            )
            for use in decoder.plugins
        ),
        options=tuple(sorted(prepared.request.options)),
        draft=draft,
        **_figures(prepared.decoder, decoder, facts[0]),
    )


def _figures(graph: GraphBuild, build: EngineBuild, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of both engines alike."""
    return {
        "profiles": build.profiles,
        "graph_sha256": graph.sha256,
        "cache_key": graph.key,
        "engine_bytes": build.bytes,
        "weights_bytes": build.weights_bytes,
        "activation_bytes": build.activation_bytes,
        "build_seconds": round(build.seconds, 3),
        "build_peak_memory_bytes": facts["peak_memory_bytes"],
    }


_ONLY_FACTS = ("peak_memory_bytes", "graph_sha256")


def _library(bundle: Bundle, request: BuildRequest, say: Callable[[str], None]) -> Path | None:
    if not bundle.manifest.operators:
        return None
    if request.library is not None:
        if not request.library.is_file():
            raise BuildError(
                "a graph with operators of edgekit needs their plugin library",
                f"{request.library} does not exist",
                "leave --plugin-library out to have it compiled, which needs nvcc",
            )
        return request.library.resolve()
    say("compiling the plugin library, which takes minutes the first time")
    return plugin_library((request.device.compute_capability,))


def _is_whole(bundle: Bundle, entry: EngineEntry, *, full: bool = True) -> bool:
    """Whether an engine's files are as the manifest says; by their sizes alone unless `full`."""
    return all(
        check_file(bundle.path, file, full=full).ok for file in bundle.manifest.files if file.name in entry.files
    )


def _engine_name(request: BuildRequest, backend: Backend, bundle: Bundle) -> str:
    if request.name is not None:
        if not _NAME.fullmatch(request.name):
            raise BuildError(
                "an engine's name is of small letters, digits, and . + _ -",
                f"{request.name!r} is not",
                "choose another --name",
            )
        return request.name
    kind = "" if backend.builds_elsewhere else f"-{backend.name}"
    return f"sm{request.device.compute_capability}-{bundle.manifest.dtype}{kind}"


def planned_build(bundle: Bundle, device: DeviceProfile, backend: str) -> BuildCost:
    """What building the bundle's engines takes, as `edgekit plan` reckons it; draft heads are as one more layer."""
    manifest = bundle.manifest
    layers = manifest.model.layers + (manifest.draft is not None)
    weights = Estimate.exact(preflight.weight_bytes(bundle), "the bundle's own weights")
    return build_cost(device, backend, layers, weights)


def _check_disk(bundle: Bundle, planned: BuildCost) -> None:
    """Refuse to begin where the engine will not fit."""
    needed = planned.engine.high
    free = disk_free_bytes(bundle.path.absolute())
    if free < needed:
        raise DoesNotFit(
            "an engine must fit on the disk of its bundle",
            f"it takes about {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free at {bundle.path}",
            "free some space, or copy the bundle to another disk and build there",
        )
