"""What is checked before a build starts: each refusal names the rule, the fact and the command that mends it."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from edgekit import contract
from edgekit.build.backends import Backend, backend_named
from edgekit.build.backends.tensorrt import OLDEST, release
from edgekit.build.profile import Limits
from edgekit.bundle import Bundle
from edgekit.device.profile import DeviceProfile
from edgekit.errors import BuildError, DoesNotFit

#: Unsupported nodes that a message lists.
_MOST_LISTED = 5
#: Memory of the device that is left to CUDA, activations and other programs when the capacity follows from the memory.
_SPARE_SHARE = 0.2
_ROUND_TOKENS = 64


def chosen_backend(profile: DeviceProfile, name: str | None) -> Backend:
    """The backend asked for, or the device's first. Raises BuildError where the device has none of that name."""
    backend = backend_named(name or profile.backend)
    if backend.name not in profile.backends:
        raise BuildError(
            f"engines for {profile.title} are built by {' or '.join(profile.backends)}",
            f"{backend.name} was asked for",
            "leave --backend out",
        )
    return backend


def needs_device_kit(profile: DeviceProfile, backend: Backend) -> bool:
    """Whether an engine for this device can be built on such a device only, and this machine is none."""
    return not backend.builds_elsewhere and profile.compute_capability not in local_capabilities()


def local_capabilities() -> set[str]:
    """Compute capabilities of this machine's GPUs."""
    from edgekit.device.probe import probe

    found = set()
    for device in probe():
        if device.profile is not None:
            found.add(device.profile.compute_capability)
        elif device.kind == "gpu":
            found.add(device.facts.get("compute capability", ""))
    return found - {""}


def refuse_other_device(profile: DeviceProfile, bundle: Path) -> BuildError:
    """The error where an engine must be built on the device itself."""
    local = ", ".join(sorted(local_capabilities())) or "none"
    elsewhere = [name for name in profile.backends if backend_named(name).builds_elsewhere]
    others = "".join(f"; or build here with --backend {name}" for name in elsewhere)
    return BuildError(
        f"an engine for {profile.title} is built on one: TensorRT builds for the GPU it runs on",
        f"it has compute capability {profile.compute_capability}, GPUs of this machine: {local}",
        f"make a kit that builds it there: edgekit build {bundle} --device {profile.name} -o KIT{others}",
    )


def check_processor(bundle: Bundle, profile: DeviceProfile) -> str:
    """Refuse a plugin library that would be compiled for another processor than the device's.

    Returns:
        What is not known of an engine that is built beside another processor, "" where there is none.

    Raises:
        BuildError: the graph needs a plugin library, and this machine's would not load there.
    """
    here, there = platform.machine(), profile.cpu_architecture
    if there in (None, here):
        return ""
    if bundle.manifest.operators:
        kit = any(not backend_named(name).builds_elsewhere for name in profile.backends)
        raise BuildError(
            "the plugin library of an engine is loaded where it is built and where it runs, so both have one processor",
            f"{profile.title} has an {there} processor, this machine {here}",
            f"build on the device itself{' with a device kit' if kit else ''}: edgekit build {bundle.path} --device "
            f"{profile.name}{' -o KIT' if kit else ''}",
        )
    return (
        f"{profile.title} has an {there} processor, this machine {here}: whether this engine loads there was not tried"
    )


def check_versions(profile: DeviceProfile) -> None:
    """Refuse a device none of whose releases has a TensorRT that edgekit builds with."""
    versions = [software.tensorrt for software in profile.software if software.tensorrt]
    elsewhere = any(backend_named(name).builds_elsewhere for name in profile.backends)
    if not elsewhere and versions and all(release(version) < OLDEST for version in versions):
        raise BuildError(
            f"engines are built with TensorRT {'.'.join(map(str, OLDEST))} or newer",
            f"the newest release for {profile.title}, {profile.software[-1].name}, has {versions[-1]}",
            "choose another device: edgekit devices list; this one can be planned for, not built for",
        )


def check_form(bundle: Bundle, backend: Backend, trt: Any, profile: DeviceProfile) -> None:
    """Refuse a bundle whose graph is meant for another runtime, or another version of TensorRT."""
    forms = backend.forms(str(trt.__version__))
    manifest = bundle.manifest
    if manifest.form in forms:
        return
    raise BuildError(
        f"{backend.name} {trt.__version__} builds bundles of the form {' or '.join(forms)}",
        f"{bundle.path} has the form {manifest.form}",
        f"{export_command(bundle, form=forms[0])}, then edgekit build BUNDLE --device {profile.name}",
    )


def check_dtype(bundle: Bundle, profile: DeviceProfile) -> None:
    """Refuse weights that the device's GPU has no arithmetic for."""
    dtype = bundle.manifest.dtype
    if profile.dtypes and dtype not in profile.dtypes:
        usable = [name for name in ("fp16", "int8", "int4", "fp32") if name in profile.dtypes]
        raise BuildError(
            f"engines for {profile.title} have weights of {', '.join(profile.dtypes)}",
            f"those of {bundle.path} are {dtype}",
            export_command(bundle, dtype=usable[0] if usable else "DTYPE"),
        )


def check_operators(bundle: Bundle, backend: Backend, version: str) -> str:
    """Refuse nodes that this version of TensorRT does not take, each with its place and what mends it.

    Returns:
        Why nothing was checked, "" when all was: without the onnx package TensorRT's own parser is the first to look.

    Raises:
        BuildError: a node, the opset or a function of one of the bundle's graphs would be refused.
    """
    try:
        import onnx
    except ImportError:
        return "operators are left to TensorRT's parser to check: the onnx package is not installed here"
    from edgekit.rewrite.tensorrt_advice import refused_nodes
    from edgekit.rewrite.tensorrt_table import table_for

    table, draft = table_for(backend.name, version), bundle.manifest.draft
    for file in (bundle.manifest.graph.file, *([draft.file] if draft is not None else [])):
        refused = refused_nodes(onnx.load(bundle.file(file), load_external_data=False), table)
        if refused:
            listed = "; ".join(map(str, refused[:_MOST_LISTED]))
            more = f"; and {len(refused) - _MOST_LISTED} more" if len(refused) > _MOST_LISTED else ""
            raise BuildError(
                f"every node of a graph must be one that {backend.name} {version} takes",
                f"in {file} {len(refused)} {'is' if len(refused) == 1 else 'are'} not: {listed}{more}",
                export_command(bundle, form=backend.forms(version)[0]),
            )
    return ""


def weight_bytes(bundle: Bundle) -> int:
    """Bytes of the weights of all graphs of a bundle."""
    manifest = bundle.manifest
    names = {*manifest.graph.data, *(manifest.draft.data if manifest.draft is not None else ())}
    return sum(entry.bytes for entry in manifest.files if entry.name in names)


def served_limits(bundle: Bundle, profile: DeviceProfile, given: dict[str, int]) -> Limits:
    """What the engine will serve: what was asked for, else what the bundle and the device's memory allow.

    Args:
        given: of the fields of `Limits`, those that were asked for.

    Raises:
        BuildError: more than the bundle serves was asked for.
        DoesNotFit: the caches that were asked for and the weights are more than the device's memory.
    """
    cache, usable = bundle.manifest.cache, profile.usable_memory_bytes
    weights = weight_bytes(bundle)
    batch = given.get("max_batch_size", 1)
    per_token = max(1, cache.bytes_per_token) * batch
    fits = int((usable * (1 - _SPARE_SHARE) - weights) // per_token)
    capacity = given.get("max_kv_cache_capacity")
    if capacity is None:
        rounded = max(1, fits) // _ROUND_TOKENS * _ROUND_TOKENS or max(1, fits)
        capacity = min(cache.capacity_limit, rounded)
    elif capacity > cache.capacity_limit:
        raise BuildError(
            "an engine serves no longer context than its bundle",
            f"--max-kv-cache-capacity is {capacity:,}, the bundle serves {cache.capacity_limit:,} tokens",
            f"choose {cache.capacity_limit} or less, or {export_command(bundle, context=capacity)}",
        )
    if weights + capacity * per_token > usable or fits < 1:
        raise DoesNotFit(
            f"weights and caches must fit into the {usable / 1e9:.1f} GB that {profile.title} has for a program",
            f"weights {weights / 1e9:.2f} GB, {capacity:,} tokens of cache for {batch} sequences "
            f"{capacity * per_token / 1e9:.2f} GB",
            f"lower --max-kv-cache-capacity or --max-batch-size; edgekit plan {bundle.manifest.model.name} --device "
            f"{profile.name} tells what fits",
        )
    fixed = fixed_capacity(bundle)
    if fixed is not None and weights + fixed * per_token > usable:
        raise DoesNotFit(
            f"weights and caches must fit into the {usable / 1e9:.1f} GB that {profile.title} has for a program",
            f"weights {weights / 1e9:.2f} GB, and the graph's buffers hold {fixed:,} tokens for each of {batch} "
            f"sequences whether they are used or not: {fixed * per_token / 1e9:.2f} GB",
            f"make them smaller: {export_command(bundle, context=max(1, fixed // 2))}",
        )
    longest = given.get("max_input_len", min(Limits.max_input_len, capacity))
    if longest > capacity:
        raise BuildError(
            "a piece of a prompt fits into the cache",
            f"--max-input-len is {longest:,}, the cache holds {capacity:,} tokens",
            f"choose --max-input-len {capacity} or less",
        )
    drafted = bundle.manifest.draft.tokens if bundle.manifest.draft is not None else Limits.max_draft_len
    draft = given.get("max_draft_len", drafted)
    return Limits(batch, longest, capacity, min(draft, capacity - 1))


def fixed_capacity(bundle: Bundle) -> int | None:
    """Tokens that the buffers of caches written in place hold, where the graph fixes that."""
    for value in bundle.manifest.graph.inputs:
        suffix = value["name"].rpartition(".")[2]
        if value["name"] == contract.past_name(0, suffix):
            size = value["shape"][contract.SEQUENCE_AXES[suffix]]
            return size if isinstance(size, int) else None
    return None


def export_command(bundle: Bundle, *, form: str = "", dtype: str = "", context: int | None = None) -> str:
    """The command that makes the bundle again with something changed."""
    manifest = bundle.manifest
    source = manifest.raw.get("provenance", {}).get("checkpoint", {}).get("location", "CHECKPOINT")
    extra = f" --max-context {context}" if context is not None else ""
    wanted = form or (manifest.form if manifest.form.startswith(("tensorrt", "jetpack")) else contract.FORM_TENSORRT)
    return f"edgekit export {source} -o BUNDLE --form {wanted} --dtype {dtype or manifest.dtype}{extra}"
