"""Making a device kit on a workstation: checked, cross-compiled, with golden texts, and renamed when whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit import contract
from edgekit.build import preflight
from edgekit.build.backends import backend_named
from edgekit.build.backends.tensorrt import OLDEST, PLUGIN_OVERRIDE, release
from edgekit.build.bundle_engine import BuildRequest
from edgekit.build.cross import library_architecture, toolchain_for
from edgekit.build.plugin_library import LIBRARY, plugin_library
from edgekit.build.profile import Limits, decoder_profiles, draft_profiles
from edgekit.bundle import Bundle
from edgekit.bundle.manifest import MANIFEST_NAME
from edgekit.bundle.write import whole_directory
from edgekit.device.profile import DeviceProfile, Software
from edgekit.errors import BuildError, BundleError
from edgekit.kit.document import BUNDLE, GOLDEN, RUN, SOURCE, Kit, read_kit, write_kit_manifest
from edgekit.kit.golden import golden_from_session, write_golden
from edgekit.kit.plan import checked_plan
from edgekit.kit.source_tree import copy_source

#: Golden texts: how many prompts, and by how many tokens each is continued. Their logits are most of their size.
PROMPTS, TOKENS = 3, 16
_JETSONS = ("87", "110")
#: The processor that is meant where a device is a card.
CARD_HOST = "x86_64"
_SCRIPT = Path(__file__).with_name("run.sh.txt")


@dataclass(frozen=True)
class KitRequest:
    """What a kit is asked to be.

    Attributes:
        build: as for an engine built here; its backend is TensorRT, which builds on the device.
        prompts: of the golden texts; None for those that parity uses.
        tokens: by which each is continued.
    """

    build: BuildRequest
    prompts: Sequence[str] | None = None
    tokens: int = TOKENS


def make_kit(
    bundle: Bundle, request: KitRequest, destination: Path, say: Callable[[str], None] = lambda text: None
) -> Kit:
    """Make a kit at `destination`, which must not exist or be empty.

    Args:
        bundle: whose files have been checked.
        say: told what takes long.

    Raises:
        BuildError, DoesNotFit: no release of the device takes the bundle, or a check that every build makes fails; the
            tools to compile for the device are missing.
        BundleError: the destination is taken.
        PromptError, SessionError: golden texts cannot be made.
    """
    device = request.build.device
    _check_place(destination)
    software, limits, plan = checked_kit(bundle, request.build)
    library = _library(bundle, request.build, say)

    with whole_directory(destination) as folder:
        _copy_bundle(bundle, folder / BUNDLE)
        say("writing golden texts")
        (folder / GOLDEN).mkdir()
        write_golden(_golden(bundle, request, limits), folder / GOLDEN)
        copy_source(folder / SOURCE)
        if library is not None:
            shutil.copyfile(library, folder / LIBRARY)
        script = folder / RUN
        script.write_text(_SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
        script.chmod(0o755)
        write_kit_manifest(folder, **_about(bundle, device, software, limits, library), plan=plan)
    return read_kit(destination)


def checked_kit(bundle: Bundle, build: BuildRequest) -> tuple[Software, Limits, dict[str, Any]]:
    """All checks that need no tools: the release that a kit would be for, what it would serve, and the plan of it.

    Raises:
        BuildError, DoesNotFit, ModelError: see `make_kit`.
    """
    device, backend = build.device, backend_named("tensorrt")
    if build.backend not in (None, backend.name):
        raise BuildError(
            "a device kit is built by tensorrt, on the device",
            f"--backend {build.backend} was asked for",
            "leave --backend out, or -o, to build here",
        )
    preflight.chosen_backend(device, backend.name)
    preflight.check_versions(device)
    preflight.check_dtype(bundle, device)
    software = software_for(bundle, device)
    preflight.check_operators(bundle, backend, software.tensorrt)
    limits = preflight.served_limits(bundle, device, dict(build.limits))
    return software, limits, checked_plan(bundle, device, software, limits)


def _check_place(destination: Path) -> None:
    """Refuse a place that is taken, before anything is compiled."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise BundleError(
            "a kit is made in a new directory, or an empty one",
            f"{destination} holds something",
            "choose another place with -o, or empty it yourself",
        )


def software_for(bundle: Bundle, device: DeviceProfile) -> Software:
    """The newest release of a device whose TensorRT takes the form of the bundle.

    Raises:
        BuildError: there is none; the form that one takes is named.
    """
    form = bundle.manifest.form
    known = [software for software in device.software if software.tensorrt and release(software.tensorrt) >= OLDEST]
    for software in reversed(known):
        newest = release(software.tensorrt) >= PLUGIN_OVERRIDE
        if form == (contract.FORM_TENSORRT if newest else contract.FORM_JETPACK6):
            return software
    if form == contract.FORM_JETPACK6 and known:  # every later one takes it too
        return known[-1]
    listed = ", ".join(f"{software.name} (TensorRT {software.tensorrt})" for software in known) or "none"
    usable = contract.FORM_JETPACK6 if not any(release(s.tensorrt) >= PLUGIN_OVERRIDE for s in known) else form
    wanted = usable if usable in (contract.FORM_JETPACK6, contract.FORM_TENSORRT) else contract.FORM_TENSORRT
    raise BuildError(
        f"a kit holds a graph that a TensorRT of {device.title} takes",
        f"{bundle.path} has the form {form}; releases for the device are {listed}",
        f"{preflight.export_command(bundle, form=wanted)}, then make the kit of that bundle",
    )


def host_architecture(device: DeviceProfile) -> str:
    """The processor beside the device's GPU; that of most machines where a card can be in any."""
    return device.cpu_architecture or CARD_HOST


def _library(bundle: Bundle, build: BuildRequest, say: Callable[[str], None]) -> Path | None:
    if not bundle.manifest.operators:
        return None
    if build.library is not None:
        return _given(build.library, build.device)
    architecture = host_architecture(build.device)
    any_host = " (a card is in machines of any processor: --plugin-library takes a library for another)"
    which = architecture + ("" if build.device.cpu_architecture else any_host)
    say(f"compiling the plugin library for {which}, which takes minutes the first time")
    return plugin_library(_architectures(build.device, architecture), toolchain_for(architecture))


def _architectures(device: DeviceProfile, host: str) -> tuple[str, ...]:
    """All Jetsons share one library, so that it is compiled once."""
    capability = device.compute_capability
    return _JETSONS if host == "aarch64" and capability in _JETSONS else (capability,)


def _given(library: Path, device: DeviceProfile) -> Path:
    """A library that was compiled elsewhere. Raises BuildError where it cannot be the device's."""
    if not library.is_file():
        raise BuildError(
            "a graph with operators of edgekit needs their plugin library",
            f"{library} does not exist",
            "leave --plugin-library out to have it compiled",
        )
    found = library_architecture(library)
    if found is None or (device.cpu_architecture and found != device.cpu_architecture):
        raise BuildError(
            f"a kit's plugin library is a shared library for {device.cpu_architecture or 'the machine it goes to'}",
            f"{library} is {'none' if found is None else 'one for ' + found}",
            "leave --plugin-library out to have it compiled",
        )
    return library.resolve()


def _copy_bundle(bundle: Bundle, target: Path) -> None:
    for name in (MANIFEST_NAME, *(entry.name for entry in bundle.manifest.files)):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, place)


def _golden(bundle: Bundle, request: KitRequest, limits: Limits) -> Any:
    from edgekit.chat.tokenizer import tokenizer_from_bundle
    from edgekit.parity.prompts import shipped_prompts
    from edgekit.runtime.session import session_from_bundle

    tokenizer = tokenizer_from_bundle(bundle)
    texts = request.prompts if request.prompts is not None else shipped_prompts()[:PROMPTS]
    longest = limits.max_kv_cache_capacity - request.tokens
    prompts = [tokenizer.encode(text, add_bos=True) for text in texts]
    if request.prompts is None:
        prompts = [prompt[: max(1, longest)] for prompt in prompts]
    session = session_from_bundle(bundle, capacity=limits.max_kv_cache_capacity)
    try:
        return golden_from_session(session, prompts, request.tokens)
    finally:
        session.close()


def _host_of(device: DeviceProfile, library: Path | None) -> str:
    """What the kit says of the processor: the library's where there is one, since nothing else depends on it."""
    if library is not None:
        return library_architecture(library) or ""
    return device.cpu_architecture or ""


def _about(
    bundle: Bundle, device: DeviceProfile, software: Software, limits: Limits, library: Path | None
) -> dict[str, Any]:
    in_place = bundle.manifest.cache.kind == contract.CACHE_SHARED
    profiles = decoder_profiles(limits, in_place=in_place)
    if bundle.manifest.draft is not None:
        profiles |= draft_profiles(limits)
    return {
        "device": device.name,
        "software": software.name,
        "compute_capability": device.compute_capability,
        "cpu_architecture": _host_of(device, library),
        "tensorrt": software.tensorrt,
        "cuda": software.cuda,
        "model": bundle.manifest.model.name,
        "form": bundle.manifest.form,
        "dtype": bundle.manifest.dtype,
        **asdict(limits),
        "plugin_library": LIBRARY if library is not None else "",
        "operators_checked": software.tensorrt,
        "profiles": [
            {"name": name, "axes": {axis: asdict(size) for axis, size in axes.items()}}
            for name, axes in profiles.items()
        ],
    }
