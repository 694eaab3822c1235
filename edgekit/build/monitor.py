"""What TensorRT says of its progress: phases within phases, each with its steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: (what happened, phase, of how many steps or which step): "start", "step", "end".
Listener = Callable[[str, str, int], None]

#: Phases that begin and end thousands of times in a second are counted by the phase they are in.
_SHORTEST_STEP_S = 0.05


def progress_monitor(trt: Any, listen: Listener, cancelled: Callable[[], bool] = lambda: False) -> Any:
    """An IProgressMonitor that passes on the phases that are worth showing.

    Args:
        listen: called from TensorRT's thread; steps less than a twentieth of a second apart are left out.
        cancelled: asked at each step; true ends the build.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._parents: dict[str, str | None] = {}
            self._said = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._parents[phase_name] = parent_phase
            if self._depth(phase_name) <= 2:
                listen("start", phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            now = time.monotonic()
            if self._depth(phase_name) <= 2 and now - self._said >= _SHORTEST_STEP_S:
                self._said = now
                listen("step", phase_name, step + 1)
            return not cancelled()

        def phase_finish(self, phase_name: str) -> None:
            if self._depth(phase_name) <= 2:
                listen("end", phase_name, 0)

        def _depth(self, phase: str) -> int:
            depth, parent = 0, self._parents.get(phase)
            while parent is not None:
                depth, parent = depth + 1, self._parents.get(parent)
            return depth

    return Monitor()
