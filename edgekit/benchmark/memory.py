"""The memory of this process, as Linux counts it."""

from __future__ import annotations

import re
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_bytes(status: Path = _STATUS) -> dict[str, int] | None:
    """Resident memory in bytes: "peak" and "now", and of the latter "anonymous" and "file" (mapped weights).

    Not getrusage: its ru_maxrss counts what the parent held when it started this process. None outside Linux.
    """
    try:
        text = status.read_text()
    except OSError:
        return None
    kilobytes = {name: int(count) for name, count in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    fields = {"peak": "VmHWM", "now": "VmRSS", "anonymous": "RssAnon", "file": "RssFile"}
    if not all(field in kilobytes for field in fields.values()):
        return None
    return {name: kilobytes[field] * 1024 for name, field in fields.items()}
