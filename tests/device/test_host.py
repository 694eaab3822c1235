"""What is read from the files of Linux machines, on samples of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.device import host

ARM = "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd asimdhp asimddp i8mm\n\nprocessor\t: 1\n"
X86 = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx2 avx512_vnni\n"


@pytest.mark.parametrize(
    ("text", "architecture", "model", "feature"),
    [(ARM, "aarch64", "unknown", "asimddp"), (X86, "x86_64", "Intel(R) Xeon(R)", "avx512_vnni")],
)
def test_cpu(tmp_path: Path, text: str, architecture: str, model: str, feature: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    cpu = host.cpu(tmp_path / "cpuinfo", architecture)
    assert cpu.model == model
    assert feature in cpu.features
    assert feature in host.CPU_FEATURES[architecture]
    assert cpu.usable_cores >= 1


def test_cpu_without_cpuinfo_has_no_known_features(tmp_path: Path) -> None:
    assert host.cpu(tmp_path / "nothing").features == frozenset()


def test_memory_is_capped_by_the_control_group(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       8000 kB\nMemFree: 1 kB\nMemAvailable:   6000 kB\n")
    assert host.memory(tmp_path / "meminfo", tmp_path) == host.Memory(8_192_000, 6_144_000)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("300000\n")
    assert host.memory(tmp_path / "meminfo", tmp_path) == host.Memory(1_000_000, 700_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert host.memory(tmp_path / "meminfo", tmp_path) == host.Memory(8_192_000, 6_144_000)
    assert host.memory(tmp_path / "nothing", tmp_path) is None


def test_disk_of_a_directory_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert host.disk_free_bytes(tmp_path / "a" / "b") > 0


def test_jetson_is_found_by_its_release_file(tmp_path: Path) -> None:
    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.0, GCID: 37537400\n")
    assert host.Gpu("Jetson", "R36 (release), REVISION: 4.0, GCID: 37537400") in host.gpus(release)


def _tool(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_nvidia_smi_lists_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, "nvidia-smi", "echo 'NVIDIA H100 80GB HBM3, 580.1, 81559 MiB'", monkeypatch)
    assert host.gpus(tmp_path / "none") == [host.Gpu("NVIDIA H100 80GB HBM3", "driver, memory: 580.1, 81559 MiB")]


def test_nvidia_smi_that_fails_lists_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, "nvidia-smi", "echo 'NVIDIA-SMI has failed, no driver'; exit 9", monkeypatch)
    assert host.gpus(tmp_path / "none") == []


def test_compiler_gives_its_release_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, "nvcc", "echo 'nvcc: NVIDIA (R)'; echo 'Cuda tools, release 13.0, V13.0.88'", monkeypatch)
    assert host.compiler("nvcc") == "Cuda tools, release 13.0, V13.0.88"
    assert host.compiler("no-such-compiler") is None


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx512f avx512_bf16", True), ("asimd bf16", True), ("avx2", False)]
)
def test_what_multiplies_bfloat16(flags: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert host.cpu(tmp_path / "cpuinfo").multiplies_bfloat16 is expected
