"""What a healing will take, by the time of its first steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from edgekit.benchmark.memory import resident_bytes
from edgekit.words import counted

#: Steps that are timed; the first, which is slow, is not among them.
TIMED = 2
#: float32 copies of what is trained: AdamW's two, and those of a save, which holds the numbers and AdamW's.
OPTIMIZER, SAVED = 2, 3


@dataclass(frozen=True)
class HealEstimate:
    """Told before anything is written.

    Attributes:
        steps: of distillation, those that are left.
        seconds: of all that is left.
        memory_bytes: of the process, or of the GPU that it trains on: what it holds after the first steps, and what the
            optimiser adds.
        work_bytes: on disk: what can be gone on from, and the output.
    """

    steps: int
    seconds: float
    memory_bytes: int
    work_bytes: int

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def line(self) -> str:
        """For people."""
        minutes = self.seconds / 60
        long = f"{minutes:.1f} minutes" if minutes < 10 else counted(round(minutes), "minutes")
        return (
            f"estimate: {counted(self.steps, 'steps')}, about {long} by the time of the first, "
            f"{self.memory_bytes / 1e9:.1f} GB of memory, {self.work_bytes / 1e6:,.0f} MB on disk while it lasts"
        )


#: Told the estimate before anything is written.
Estimated = Callable[[HealEstimate], None]


def untold(estimate: HealEstimate) -> None:
    """For who does not ask."""


def step_seconds(step: Callable[[], Any]) -> float:
    """Of one of a few."""
    step()
    started = time.monotonic()
    for _ in range(TIMED):
        step()
    return (time.monotonic() - started) / TIMED


def memory_bytes(trained_bytes: int, device: str = "cpu") -> int:
    """Of the process, or of the GPU, once it trains so many bytes: what the first steps took, and what is to come; of a
    process outside Linux only the latter is known."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) + OPTIMIZER * trained_bytes
    now = resident_bytes()
    return (now["peak"] if now else 0) + (OPTIMIZER + SAVED) * trained_bytes


def work_bytes(trained_bytes: int, output_bytes: int) -> int:
    """Two saves, of which one replaces the other, and the output."""
    return 2 * SAVED * trained_bytes + output_bytes
