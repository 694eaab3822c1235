"""How many threads a matrix product should use here."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CPU = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def default_threads(cpu: Path = _CPU, quota: Path = _QUOTA) -> int:
    """One thread per physical core that this process may use, at least 1.

    Two hyper-threads share one core's vector units, so a second thread there slows a matrix product. Where the
    topology cannot be read (outside Linux) every logical processor counts as a core. A container's CPU quota
    (control group v2) is respected.
    """
    cores = _physical_cores(cpu)
    allowed = _quota(quota)
    return max(1, cores if allowed is None else min(cores, allowed))


def _physical_cores(cpu: Path) -> int:
    # Not in every Python and system that edgekit supports.
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for index in usable:
        try:
            siblings = (cpu / f"cpu{index}" / "topology" / "thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(index)
        cores.add(siblings)
    return len(cores)


def _quota(path: Path) -> int | None:
    try:
        quota, period = path.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))
