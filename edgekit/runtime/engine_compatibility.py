"""Whether an engine of a bundle may be loaded here: each refusal names the mismatch and the command that mends it.

TensorRT itself says little when an engine does not fit, and says it late; a manifest knows before the file is read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle import Bundle, EngineEntry
from edgekit.bundle.read import check_file, describe
from edgekit.errors import BundleError

#: The oldest driver for each major version of CUDA, on desktops and servers.
#: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, table 1
OLDEST_DRIVER = {"11": "450", "12": "525", "13": "580"}

#: What `pip install` knows a backend by, with a place for its version.
PACKAGES = {"tensorrt-rtx": "tensorrt-rtx-cu13=={}", "tensorrt": "tensorrt=={}"}


@dataclass(frozen=True)
class Machine:
    """What would load an engine.

    Attributes:
        compute_capability: of its GPU, without the dot ("89"); None without a GPU.
        backend: "tensorrt-rtx" or "tensorrt"; backend_version: the version that is installed ("1.7.1.116").
        driver_version: of the GPU's driver ("580.65.06"); None where it cannot be told, as on a Jetson.
        cuda_version: the newest CUDA that the driver knows ("13.0"); None where it cannot be told.
    """

    compute_capability: str | None
    backend: str
    backend_version: str
    driver_version: str | None = None
    cuda_version: str | None = None


@dataclass(frozen=True)
class RegisteredPlugin:
    """A plugin that TensorRT's registry offers once libraries are loaded."""

    name: str
    version: str
    namespace: str


def check_engine(entry: EngineEntry, machine: Machine, bundle: Path | None = None) -> None:
    """Refuse an engine that this machine cannot load, before its file is read.

    An engine is loaded by the backend and the version that built it, on a GPU that it was built for
    (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/version-compatibility.html and
    https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/engine-compatibility.html).

    Args:
        bundle: where it lies, for the commands in messages.

    Raises:
        BundleError: another backend or version, another or no GPU, or a driver that is too old.
    """
    where = str(bundle) if bundle is not None else "BUNDLE"
    again = f"edgekit build {where} --device {entry.device or 'DEVICE'}"
    if machine.backend != entry.backend:
        raise BundleError(
            "an engine is loaded by the backend that built it",
            f"{entry.name} was built by {entry.backend}, here is {machine.backend}",
            f"pip install {package(entry)}, or build for what is here: "
            f"edgekit build {where} --device DEVICE --backend {machine.backend}",
        )
    if not _same_version(machine.backend_version, entry.backend_version):
        raise BundleError(
            f"an engine is loaded by the version of {entry.backend} that built it",
            f"{entry.name} was built by {entry.backend_version}, here is {machine.backend_version}",
            f"build it again: {again}; or pip install {package(entry)} (on a Jetson TensorRT comes with JetPack)",
        )
    if machine.compute_capability is None:
        raise BundleError(
            "an engine needs a GPU to run on",
            f"{entry.name} is for compute capability {_listed(entry.compute_capabilities)}, this machine has no GPU",
            f"run it on {entry.device or 'such a device'}; here, use an ONNX bundle: "
            "edgekit export CHECKPOINT -o BUNDLE --form ort --dtype DTYPE",
        )
    if machine.compute_capability not in entry.compute_capabilities:
        raise BundleError(
            "an engine runs on the GPUs that it was built for",
            f"{entry.name} is for compute capability {_listed(entry.compute_capabilities)}, "
            f"this GPU has {machine.compute_capability}",
            f"edgekit build {where} --device {_devices(machine.compute_capability)}",
        )
    _check_driver(entry, machine)


def check_engine_files(bundle: Bundle, entry: EngineEntry, names: Collection[str] | None = None) -> None:
    """Refuse an engine whose file, or a plugin library's, is not the one that the manifest lists. Reads them whole.

    Args:
        names: of its files, those that are to be loaded; None for all.

    Raises:
        BundleError: a file is missing, damaged or foreign.
    """
    files = {file.name: file for file in bundle.manifest.files}
    again = f"build it again: edgekit build {bundle.path} --device {entry.device or 'DEVICE'} --rebuild"
    for name in entry.files if names is None else names:
        check = check_file(bundle.path, files[name], full=True)
        if not check.ok:
            kind = "engine" if name in entry.engine_files else "plugin library"
            raise BundleError(
                f"an engine's files must be as the bundle's manifest says, its {kind} too",
                f"{bundle.path / name} is {describe(check)}",
                again,
            )
    for plugin in entry.plugins:
        if (names is None or plugin.library in names) and files[plugin.library].sha256 != plugin.sha256:
            raise BundleError(
                "an engine is loaded with the plugin library that it was built with",
                f"{plugin.library} is another one than {entry.name} was built with",
                again,
            )


def check_plugins(entry: EngineEntry, registered: Collection[RegisteredPlugin], bundle: Path | None = None) -> None:
    """Refuse an engine whose plugins the registry does not offer, once its libraries are loaded.

    Raises:
        BundleError: a plugin is missing, or is there in another version.
    """
    again = f"edgekit build {bundle or 'BUNDLE'} --device {entry.device or 'DEVICE'} --rebuild"
    for use in entry.plugins:
        same = [each for each in registered if (each.name, each.namespace) == (use.name, use.namespace)]
        if any(each.version == use.version for each in same):
            continue
        called = f"{use.namespace}::{use.name}" if use.namespace else use.name
        offered = f"{use.library} has version {_listed([each.version for each in same])}" if same else "it is not there"
        raise BundleError(
            "an engine's plugins must be registered in the version it was built with",
            f"{entry.name} calls {called} version {use.version}, and {offered}",
            f"build the plugin library and the engine again: {again}",
        )


def package(entry: EngineEntry) -> str:
    """What to install to have the backend of an engine."""
    return PACKAGES.get(entry.backend, entry.backend + "=={}").format(entry.backend_version)


def _check_driver(entry: EngineEntry, machine: Machine) -> None:
    needed = entry.cuda.split(".")[0]
    oldest = OLDEST_DRIVER.get(needed, "")
    newest = machine.cuda_version
    if newest is not None:
        too_old = int(newest.split(".")[0]) < int(needed)
        fact = f"this driver{_named(machine)} knows CUDA {newest} at most"
    elif machine.driver_version is not None and oldest:
        too_old = int(machine.driver_version.split(".")[0]) < int(oldest)
        fact = f"this driver is {machine.driver_version}"
    else:
        return
    if too_old:
        driver = f"driver {oldest} or newer" if oldest else f"a driver for CUDA {needed}"
        raise BundleError(
            f"an engine built with CUDA {entry.cuda} needs a driver that knows CUDA {needed}",
            fact,
            f"install {driver} (on a Jetson it comes with JetPack); then edgekit doctor",
        )


def _named(machine: Machine) -> str:
    return f" ({machine.driver_version})" if machine.driver_version else ""


def _same_version(one: str, other: str) -> bool:
    """Whether two versions are the same as far as both are written out, at least to the patch level."""
    pairs = list(zip(one.split("."), other.split("."), strict=False))
    return len(pairs) >= 3 and all(a == b for a, b in pairs)


def _devices(capability: str) -> str:
    """The known devices of a compute capability, to choose one for a command."""
    from edgekit.device.profile import device_names, device_profile

    names = [name for name in device_names() if device_profile(name).compute_capability == capability]
    return " or ".join(names[:3]) if names else f"DEVICE (one of compute capability {capability})"


def _listed(items: Collection[str]) -> str:
    return ", ".join(items)
