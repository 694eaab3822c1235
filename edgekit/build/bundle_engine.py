"""The whole build: bundle → checks → engine, in a process of its own → bundle with the engine in it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit import contract
from edgekit.build import preflight
from edgekit.build.backends import Backend
from edgekit.build.engine_cache import ENGINE_FILE, EngineCache, cache_key, graph_digest, link_or_copy
from edgekit.build.job import Job, build_from_dict, build_to_dict
from edgekit.build.plugin_library import LIBRARY, plugin_library
from edgekit.build.process import Tick, build_in_process
from edgekit.build.profile import AxisRange, Limits, decoder_profiles
from edgekit.bundle import Bundle, EngineEntry
from edgekit.bundle.engine_entry import ENGINES, PluginUse
from edgekit.bundle.extend import engine_record, extend_bundle
from edgekit.bundle.read import check_file, read_manifest
from edgekit.device.host import disk_free_bytes
from edgekit.device.profile import DeviceProfile
from edgekit.errors import BuildError, DoesNotFit
from edgekit.files import sha256_of
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
        planned: what the build will take by the formulas of `edgekit plan`, with the weights that the bundle has.
        seconds_before: how long the last build of the same graph took here; None when there was none.
        same: the bundle's own engine with this cache key; None when there is none, or it is damaged.
        note: what could not be checked, "" when all was.
    """

    bundle: Bundle
    request: BuildRequest
    backend: Backend
    backend_version: str
    name: str
    limits: Limits
    profiles: dict[str, dict[str, AxisRange]]
    library: Path | None
    library_sha256: str
    graph_sha256: str
    key: str
    planned: BuildCost
    seconds_before: float | None
    same: EngineEntry | None
    note: str


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
    if backend.name == "tensorrt" and preflight.needs_device_kit(device, backend, None):
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
    library = _library(bundle, request, say)
    library_sha256 = sha256_of(library) if library is not None else ""
    profiles = decoder_profiles(limits, in_place=_in_place(bundle))
    graph = graph_digest(bundle)
    key = cache_key(
        graph_sha256=graph,
        backend=backend.name,
        backend_version=version,
        compute_capabilities=[device.compute_capability],
        profiles=profiles,
        options=request.options,
        plugin_sha256=library_sha256,
    )
    return PreparedBuild(
        bundle=bundle,
        request=request,
        backend=backend,
        backend_version=version,
        name=_engine_name(request, backend, bundle),
        limits=limits,
        profiles=profiles,
        library=library,
        library_sha256=library_sha256,
        graph_sha256=graph,
        key=key,
        planned=planned,
        seconds_before=cache.seconds_before(graph, len(profiles)) if request.cache else None,
        same=next((entry for entry in manifest.engines if entry.cache_key == key and _is_whole(bundle, entry)), None),
        note="; ".join(note for note in notes if note),
    )


def engine_from_bundle(
    prepared: PreparedBuild,
    *,
    watch: Callable[[Tick], None] = lambda tick: None,
    hashed: Callable[[int], None] | None = None,
) -> tuple[EngineEntry, str]:
    """Build the engine and put it into the bundle, which changes in one step when everything is written.

    An engine of the bundle that is damaged is left out of the new one.

    Args:
        watch: told of phases and memory.
        hashed: called with the number of bytes hashed since the last call.

    Returns:
        The bundle's new entry, and where the engine came from: "built", "cache", or "bundle" when it was there.

    Raises:
        BuildError, DoesNotFit, BundleError: the build failed; the bundle is as it was.
    """
    if prepared.same is not None and not prepared.request.rebuild and prepared.same.name == prepared.name:
        return prepared.same, "bundle"
    directory = f"{ENGINES}/{prepared.name}"
    broken = [entry for entry in prepared.bundle.manifest.engines if not _is_whole(prepared.bundle, entry, full=False)]
    without = {directory, *(entry.directory for entry in broken)}
    with extend_bundle(prepared.bundle, without=without, progress=hashed) as draft:
        names = {entry.name for entry in broken}
        draft.manifest["engines"] = [each for each in draft.manifest.get("engines", []) if each["name"] not in names]
        folder = draft.path / directory
        folder.mkdir(parents=True, exist_ok=True)
        if prepared.library is not None:
            shutil.copyfile(prepared.library, folder / LIBRARY)
        build, origin = _engine(prepared, folder, watch)
        entry = _entry(prepared, build)
        draft.manifest["engines"] = engine_record(draft.manifest, entry.to_dict())
    found = read_manifest(prepared.bundle.path).manifest.engines
    return next(each for each in found if each.name == entry.name), origin


def _engine(prepared: PreparedBuild, folder: Path, watch: Callable[[Tick], None]) -> tuple[dict[str, Any], str]:
    """The engine as `folder`/model.engine, from the cache or built; the facts of its build and where it came from."""
    cache, request = EngineCache(), prepared.request
    found = cache.find(prepared.key) if request.cache and not request.rebuild else None
    if found is not None:
        link_or_copy(found[0], folder / ENGINE_FILE)
        return found[1], "cache"
    timing = None
    if request.cache and prepared.backend.has_timing_cache:
        timing = cache.timing_cache(request.device.name, prepared.backend.name, prepared.backend_version)
    targets = (request.device.compute_capability,) if prepared.backend.name == "tensorrt-rtx" else ()
    built = build_in_process(
        Job(
            model=str(prepared.bundle.graph.resolve()),
            destination=str(folder / ENGINE_FILE),
            backend=prepared.backend.name,
            device_kind=request.device.kind,
            profiles=prepared.profiles,
            plugin_libraries=(str(prepared.library),) if prepared.library is not None else (),
            expected_plugins={use.name: use.nodes for use in prepared.bundle.manifest.operators} or None,
            compute_capabilities=targets,
            options=request.options,
            timing_cache=str(timing) if timing is not None else None,
        ),
        memory_limit_bytes=request.memory_limit_bytes,
        watch=watch,
    )
    facts = build_to_dict(built.build) | {
        "peak_memory_bytes": built.peak_memory_bytes,
        "graph_sha256": prepared.graph_sha256,
        "path": ENGINE_FILE,
    }
    _check_versions(prepared, facts)
    if request.cache:
        cache.store(prepared.key, folder / ENGINE_FILE, facts)
    return facts, "built"


def _entry(prepared: PreparedBuild, facts: Mapping[str, Any]) -> EngineEntry:
    build = build_from_dict({key: value for key, value in facts.items() if key not in _ONLY_FACTS})
    directory = f"{ENGINES}/{prepared.name}"
    limits, device = prepared.limits, prepared.request.device
    return EngineEntry(
        name=prepared.name,
        file=f"{directory}/{ENGINE_FILE}",
        backend=prepared.backend.name,
        backend_version=build.backend_version,
        compute_capabilities=(device.compute_capability,),
        device=device.name,
        cuda=prepared.backend.cuda(),
        dtype=prepared.bundle.manifest.dtype,
        max_batch_size=limits.max_batch_size,
        max_input_len=limits.max_input_len,
        max_kv_cache_capacity=limits.max_kv_cache_capacity,
        profiles=build.profiles,
        plugins=tuple(
            PluginUse(
                use.name, use.version, use.namespace, use.nodes, f"{directory}/{LIBRARY}", prepared.library_sha256
            )
            for use in build.plugins
        ),
        options=tuple(sorted(prepared.request.options)),
        graph_sha256=prepared.graph_sha256,
        cache_key=prepared.key,
        engine_bytes=build.bytes,
        weights_bytes=build.weights_bytes,
        activation_bytes=build.activation_bytes,
        build_seconds=round(build.seconds, 3),
        build_peak_memory_bytes=facts["peak_memory_bytes"],
    )


_ONLY_FACTS = ("peak_memory_bytes", "graph_sha256")


def _check_versions(prepared: PreparedBuild, facts: Mapping[str, Any]) -> None:
    """Refuse an engine whose plugins are of another version than the graph's operators are."""
    wanted = {use.name: str(use.version) for use in prepared.bundle.manifest.operators}
    for use in facts["plugins"]:
        if wanted.get(use["name"], use["version"]) != use["version"]:
            raise BuildError(
                "a plugin must have the version of the operator it stands for",
                f"the graph has {use['name']} version {wanted[use['name']]}, the library version {use['version']}",
                "leave --plugin-library out, so that the library is compiled from this edgekit's sources",
            )


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
    names = {entry.file, *(use.library for use in entry.plugins)}
    return all(check_file(bundle.path, file, full=full).ok for file in bundle.manifest.files if file.name in names)


def _engine_name(request: BuildRequest, backend: Backend, bundle: Bundle) -> str:
    if request.name is not None:
        if not _NAME.fullmatch(request.name):
            raise BuildError(
                "an engine's name is of small letters, digits, and . + _ -",
                f"{request.name!r} is not",
                "choose another --name",
            )
        return request.name
    kind = "" if backend.name == "tensorrt-rtx" else f"-{backend.name}"
    return f"sm{request.device.compute_capability}-{bundle.manifest.dtype}{kind}"


def _in_place(bundle: Bundle) -> bool:
    return bundle.manifest.cache.kind == contract.CACHE_SHARED


def planned_build(bundle: Bundle, device: DeviceProfile, backend: str) -> BuildCost:
    """What building the bundle's engine takes, as `edgekit plan` reckons it."""
    manifest = bundle.manifest
    weights = sum(entry.bytes for entry in manifest.files if entry.name in manifest.graph.data)
    return build_cost(device, backend, manifest.model.layers, Estimate.exact(weights, "the bundle's own weights"))


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
