from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit.runtime.threads import default_threads


def topology(folder: Path, siblings: dict[int, str]) -> Path:
    for index, text in siblings.items():
        (folder / f"cpu{index}" / "topology").mkdir(parents=True)
        (folder / f"cpu{index}" / "topology" / "thread_siblings_list").write_text(text + "\n")
    return folder


def test_hyper_threads_share_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = topology(tmp_path, {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert default_threads(cpu, tmp_path / "none") == 2


def test_only_usable_processors_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = topology(tmp_path, {index: str(index) for index in range(8)})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 5, 6})
    assert default_threads(cpu, tmp_path / "none") == 3


@pytest.mark.parametrize(
    ("quota", "threads"), [("max 100000", 4), ("250000 100000", 3), ("50000 100000", 1), ("nonsense", 4)]
)
def test_a_quota_limits_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert default_threads(topology(tmp_path, {}), tmp_path / "cpu.max") == threads


def test_an_unknown_topology_counts_every_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert default_threads(tmp_path, tmp_path / "none") == 6
