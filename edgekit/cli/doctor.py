"""Tell what this machine can do."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from edgekit.device.packages import PackageState

LEAST_FREE_BYTES = 2_000_000_000
EXTRA_ENABLES = {
    "": "everything",
    "cpu": "running bundles on the CPU: run, chat, eval, bench",
    "cuda": "running bundles on an NVIDIA GPU",
    "tensorrt": "building and running TensorRT engines",
    "export": "making bundles: export, make, parity",
    "dev": "the tests and linters of the project",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report. `enables` and `how` say what a missing piece would bring and how to get it."""

    topic: str
    name: str
    status: Literal["ok", "missing", "warning"]
    value: str
    enables: str = ""
    how: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(as_json: bool) -> None:
    """Tell what this machine can do, and what each missing piece would enable."""
    findings = [*_software(), *_hardware()]
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
        return
    marks = {"ok": click.style("ok", fg="green"), "missing": "--", "warning": click.style("!!", fg="yellow")}
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            click.echo(click.style(topic, bold=True))
        click.echo(f"  {marks[finding.status]}  {finding.name}: {finding.value}")
        if finding.status != "ok":
            for label, text in (("would enable", finding.enables), ("get it by", finding.how)):
                if text:
                    click.echo(f"        {label}: {text}")


def _software() -> list[Finding]:
    from importlib import metadata

    from edgekit.device.packages import package_states

    version = ".".join(map(str, sys.version_info[:3]))
    findings = [Finding("Software", "Python", "ok", f"{version} ({sys.executable})")]
    try:
        requirements = metadata.requires("edgekit") or []
    except metadata.PackageNotFoundError:
        how = "pip install -e '.[cpu,export]' in its directory"
        return [*findings, Finding("Software", "edgekit", "warning", "runs without being installed", "this check", how)]
    states = package_states(requirements)
    findings += [_extra(extra, [state for state in states if state.extra == extra]) for extra in EXTRA_ENABLES]
    return [*findings, *_runtime(), _native_operators()]


def _native_operators() -> Finding:
    """Whether the CPU operators are compiled, or can be."""
    from edgekit.native import NativeUnavailable, built_library
    from edgekit.native.compiler import find_compiler

    name, enables = "native operators", "factorised attention (TPA) at full speed; without it standard operators run"
    try:
        compiler = find_compiler()
        library = built_library(compiler)
    except NativeUnavailable as error:
        return Finding("Software", name, "missing", error.fact, enables, error.next_step)
    where = f"compiled, {library}" if library else "compiled at their first use"
    return Finding("Software", name, "ok", f"{where}, by {compiler.version}")


def _extra(extra: str, states: list[PackageState]) -> Finding:
    """Whether all packages of an extra ("" is the base) are there."""
    name = f"extra {extra}" if extra else "base packages"
    bad = [state for state in states if not state.fits]
    if not bad:
        return Finding("Software", name, "ok", ", ".join(f"{state.name} {state.installed}" for state in states))
    partly = len(bad) < len(states) and any(state.installed for state in bad)
    wanted = ", ".join(f"{state.needed} (found {state.installed or 'none'})" for state in bad)
    how = f"pip install 'edgekit[{extra}]'" if extra else "pip install edgekit"
    if extra == "cuda":
        how += " after pip uninstall onnxruntime: the two cannot be installed together"
    if extra == "tensorrt":
        how += " (on a Jetson it comes with JetPack)"
    status: Literal["missing", "warning"] = "warning" if partly or not extra else "missing"
    return Finding("Software", name, status, f"needs {wanted}", EXTRA_ENABLES[extra], how)


def _runtime() -> list[Finding]:
    """The ONNX Runtime that an import finds, with its execution providers."""
    from edgekit.device.packages import installed_version, onnxruntime_providers

    plain, gpu = installed_version("onnxruntime"), installed_version("onnxruntime-gpu")
    if plain is None and gpu is None:
        return []
    findings = []
    if plain and gpu:
        how = "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of edgekit[cpu] and edgekit[cuda]"
        value = f"onnxruntime {plain} and onnxruntime-gpu {gpu} overwrite each other's files"
        findings.append(Finding("Software", "onnxruntime", "warning", value, "a runtime in a known state", how))
    providers, reason = onnxruntime_providers()
    if reason:
        how = "pip install --force-reinstall the package that is installed"
        return [*findings, Finding("Software", "execution providers", "warning", reason, EXTRA_ENABLES["cpu"], how)]
    return [*findings, Finding("Software", "execution providers", "ok", ", ".join(providers))]


def _hardware() -> list[Finding]:
    from edgekit.device import host

    cpu, memory, gpus = host.cpu(), host.memory(), host.gpus()
    topic = "Hardware"
    findings = [Finding(topic, "CPU", "ok", f"{cpu.model}, {cpu.architecture}, {cpu.usable_cores} usable cores")]
    for feature, enables in host.CPU_FEATURES.get(cpu.architecture, {}).items():
        if feature in cpu.features:
            findings.append(Finding(topic, feature, "ok", enables))
        else:
            findings.append(Finding(topic, feature, "missing", "not in this CPU", f"faster {enables}"))
    if memory is not None:
        value = f"{memory.available_bytes / 1e9:.1f} of {memory.total_bytes / 1e9:.1f} GB available"
        findings.append(Finding(topic, "memory", "ok", value))
    findings.append(_disk())
    for gpu in gpus:
        findings.append(Finding(topic, gpu.name, "ok", gpu.detail))
    if gpus:
        findings += _known_devices()
    else:
        how = "the NVIDIA driver, on a machine with such a GPU"
        findings.append(Finding(topic, "NVIDIA GPU", "missing", "none found", EXTRA_ENABLES["cuda"], how))
    for name, how in (("g++", "apt install g++"), ("nvcc", "the CUDA toolkit, or pip install nvidia-cuda-nvcc")):
        version = host.compiler(name)
        enables = "compiling native operators on this machine"
        findings.append(Finding(topic, name, "ok" if version else "missing", version or "not found", enables, how))
    return findings


def _known_devices() -> list[Finding]:
    """Which known device each accelerator is, and where it deviates from its profile."""
    from edgekit.device.probe import probe

    findings = []
    name, enables = "known device", "plans and builds for this device by its name"
    for device in probe():
        if device.profile is None:
            how = "a profile of it: devices/README.md"
            findings.append(Finding("Hardware", name, "missing", f"{device.name} is none", enables, how))
        elif device.deviations:
            value = f"{device.profile.name}, but {'; '.join(device.deviations)}"
            how = "see `edgekit devices probe`; on a Jetson, nvpmodel sets the power mode"
            findings.append(Finding("Hardware", name, "warning", value, "the speed that plans reckon with", how))
        else:
            findings.append(Finding("Hardware", name, "ok", device.profile.name))
    return findings


def _disk() -> Finding:
    from edgekit.device import host
    from edgekit.files import cache_dir

    cache = cache_dir()
    free = host.disk_free_bytes(cache)
    value = f"{free / 1e9:.1f} GB free at {cache}"
    if free >= LEAST_FREE_BYTES:
        return Finding("Hardware", "disk", "ok", value)
    how = "free some space, or point EDGEKIT_CACHE at another disk"
    return Finding("Hardware", "disk", "warning", value, "pulling and exporting models", how)
