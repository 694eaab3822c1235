"""What a Jetson tells about itself in its files, without root and without changing anything."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

#: JetPack by Jetson Linux release. Sources: https://github.com/rbonghi/jetson_stats (jetson_variables.py), issues 400
#: (35.3.1) and 711 (38.2.0) there; https://github.com/edgehook/Jetson-AI-task (35.4.1);
#: https://github.com/dusty-nv/NanoLLM/issues/62 (36.4.0); https://github.com/Vortiago/Finetuning/issues/8 (36.5);
#: https://developer.nvidia.com/embedded/jetpack-archive (36.4.3, 36.4.4); archive-7.0.md and archive-7.1.md of
#: https://developer.nvidia.com/embedded/jetpack/downloads (38.2, 38.4); https://github.com/antirez/ds4/pull/716 (39.2).
JETPACKS = {
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
}
_RELEASE = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)")
_MODULE = re.compile(r"p\d{4}-\d{4}")
_MODE = re.compile(r"NV Power Mode:\s*(\S+)\s*\n\s*(\d+)", re.MULTILINE)
_POWER_MODEL = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", re.MULTILINE)
#: The GPU's directory in /sys/class/devfreq: Xavier, Orin of JetPack 5, Orin of JetPack 6 and newer, Thor.
_GPU_CLOCKS = ("*.gv11b", "*.ga10b", "*.gpu", "gpu-gpc-0")


@dataclass(frozen=True)
class Jetson:
    """A Jetson as its files describe it; "" and None where they do not.

    Attributes:
        model: of the device tree, "NVIDIA Jetson Orin Nano Developer Kit".
        modules: part numbers in the device tree, the most specific first ("p3767-0005").
        linux: the Jetson Linux release, "36.4.3"; jetpack: "6.2", "" for a release that edgekit does not know.
        power_mode: its name; gpu_clock_limit_hz: the most that the GPU may be clocked at now.
    """

    model: str
    modules: tuple[str, ...]
    linux: str
    jetpack: str
    power_mode: str
    gpu_clock_limit_hz: float | None


def jetson(root: Path = Path("/"), nvpmodel: str | None = None) -> Jetson | None:
    """This Jetson, or None on another machine.

    Args:
        root: where etc, proc, sys and var are.
        nvpmodel: what `nvpmodel -q` printed; None where it is not there or refuses.
    """
    release, model = _read(root / "etc/nv_tegra_release"), _read(root / "proc/device-tree/model").strip("\0\n ")
    compatible = _read(root / "proc/device-tree/compatible")
    if not release and "nvidia,tegra" not in compatible:
        return None
    linux = linux_release(release)
    return Jetson(
        model=model,
        modules=modules(compatible),
        linux=linux,
        jetpack=JETPACKS.get(linux, ""),
        power_mode=power_mode(nvpmodel or "") or _saved_power_mode(root),
        gpu_clock_limit_hz=_gpu_clock_limit_hz(root),
    )


def linux_release(text: str) -> str:
    """The release in the text of /etc/nv_tegra_release: "36.4.3"; "" where there is none."""
    found = _RELEASE.search(text)
    if not found:
        return ""
    revision = found[2] if "." in found[2] else f"{found[2]}.0"
    return f"{found[1]}.{revision}"


def modules(compatible: str) -> tuple[str, ...]:
    """The modules' part numbers in the device tree's `compatible`, NUL between its entries, in their order.

    An entry "nvidia,p3768-0000+p3767-0005-super" names the carrier board first and then the module.
    """
    found: dict[str, None] = {}
    for entry in compatible.split("\0"):
        for number in _MODULE.findall(entry.partition("+")[2]):
            found.setdefault(number)
    for entry in compatible.split("\0"):
        if "+" not in entry:
            for number in _MODULE.findall(entry):
                found.setdefault(number)
    return tuple(found)


def power_mode(text: str) -> str:
    """The mode's name in the output of `nvpmodel -q`, "MAXN_SUPER"; "" where it does not tell."""
    found = _MODE.search(text)
    return found[1] if found else ""


def _saved_power_mode(root: Path) -> str:
    """The mode that nvpmodel saved, for those who may not run it."""
    saved = re.search(r"pmode:(\d+)", _read(root / "var/lib/nvpmodel/status"))
    if not saved:
        return ""
    names = dict(_POWER_MODEL.findall(_read(root / "etc/nvpmodel.conf")))
    return next((name for number, name in names.items() if int(number) == int(saved[1])), "")


def _gpu_clock_limit_hz(root: Path) -> float | None:
    for pattern in _GPU_CLOCKS:
        for path in sorted((root / "sys/class/devfreq").glob(pattern)):
            text = _read(path / "max_freq").strip()
            if text.isdecimal() and int(text) > 0:
                return float(text)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # present on a Jetson only, or not readable
        return ""
