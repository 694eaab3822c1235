"""How busy the machine was with other work while something was measured. Linux; None where it cannot be told."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
#: The first fields of /proc/stat's "cpu" line, see proc_stat(5): guest time is part of user time already.
_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@dataclass(frozen=True)
class CpuClock:
    """CPU seconds so far: of all processors, the busy part of it, and of this process with its finished children."""

    total_s: float
    busy_s: float
    own_s: float


def cpu_clock(stat: Path = _STAT) -> CpuClock | None:
    """Read the clocks now; None outside Linux."""
    try:
        line = stat.read_text().split("\n", 1)[0]
    except OSError:
        return None
    ticks = dict(zip(_FIELDS, map(int, line.split()[1 : 1 + len(_FIELDS)]), strict=False))
    per_second = os.sysconf("SC_CLK_TCK")
    total, times = sum(ticks.values()), os.times()
    idle = ticks.get("idle", 0) + ticks.get("iowait", 0)
    own = times.user + times.system + times.children_user + times.children_system
    return CpuClock(total / per_second, (total - idle) / per_second, own)


def others_share(before: CpuClock | None, after: CpuClock | None) -> float | None:
    """The share (0 to 1) of all processors' time that others took between two readings."""
    if before is None or after is None or after.total_s <= before.total_s:
        return None
    others = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return max(0.0, others) / (after.total_s - before.total_s)
