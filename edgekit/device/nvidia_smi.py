"""The graphics processors that nvidia-smi lists.

nvidia-smi rather than NVML for this: it is one call, it is there wherever the driver is, and what it prints can be
recorded and tested. NVML (edgekit.device.nvml) reads the same figures many times a second while something runs.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Driver 450 and newer know all of these but compute_cap, which came with 510.
FIELDS = ("name", "compute_cap", "memory.total", "driver_version", "power.limit", "clocks.max.sm")
COMMAND = ("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class ListedGpu:
    """One line of nvidia-smi; None or "" for what it calls not available.

    Attributes:
        compute_capability: without the dot, "89".
        clock_limit_hz: the most that the SMs are clocked at; power_limit_w: in force now.
    """

    name: str
    compute_capability: str
    memory_bytes: int | None
    driver: str
    power_limit_w: float | None
    clock_limit_hz: float | None


def listed_gpus(text: str) -> list[ListedGpu]:
    """The GPUs in what COMMAND printed. Lines of another form, as messages of a broken driver, are left out."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(FIELDS) or not cells[0]:
            continue
        name, capability, memory, driver, power, clock = cells
        mebibytes, megahertz = _number(memory), _number(clock)
        found.append(
            ListedGpu(
                name=name,
                compute_capability=capability.replace(".", "") if _number(capability) else "",
                memory_bytes=None if mebibytes is None else int(mebibytes * 2**20),
                driver=driver if driver[:1].isdecimal() else "",
                power_limit_w=_number(power),
                clock_limit_hz=None if megahertz is None else megahertz * 1e6,
            )
        )
    return found


def _number(text: str) -> float | None:
    """A positive number; None for "[N/A]", "[Not Supported]" and the like."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
