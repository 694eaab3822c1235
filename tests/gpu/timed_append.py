"""edgekit::TPAAppend to be timed, beside torch's copies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from edgekit.ops.registry import operator
from tests.gpu.timed_work import DTYPES, Machine, Work, ends, sets_of


@dataclass(frozen=True)
class Append:
    """TPAAppend of `new` rows behind `context - new`, in place or growing."""

    rank: int
    width: int
    context: int
    batch: int = 1
    new: int = 1
    grow: bool = False
    dtype: str = "float16"
    stem = "tpa_append"

    @property
    def name(self) -> str:
        return f"rows {self.rank} x {self.width}, {'growing' if self.grow else 'in place'}"

    def bytes_moved(self) -> int:
        rows = self.context if self.grow else self.new
        return 2 * self.batch * rows * self.rank * self.width * (torch.finfo(DTYPES[self.dtype]).bits // 8)

    def prepare(self, machine: Machine) -> Work:
        spec = operator("TPAAppend")
        kind, device = DTYPES[self.dtype], machine.device
        row, old = (self.rank, self.width), self.context - self.new
        held = 2 * self.batch * self.context * self.rank * self.width * kind.itemsize
        sets = sets_of(held, machine)
        past = torch.randn((sets, self.batch, old if self.grow else self.context, *row), device=device, dtype=kind)
        fresh = torch.randn((sets, self.batch, self.new, *row), device=device, dtype=kind)
        present = torch.full((sets, self.batch, self.context, *row), torch.nan, device=device, dtype=kind)
        if not self.grow:
            present = past
        before = {i: past[i, :, :old].clone() for i in ends(sets)}
        sizes = {
            "batch": self.batch, "fresh": self.new, "total": self.context, "past_slots": past.shape[2],
            "present_slots": self.context, "row_bytes": self.rank * self.width * kind.itemsize,
        }  # fmt: skip
        nothing = torch.empty(16, device=device, dtype=torch.uint8)
        calls = [
            machine.call(
                self.stem,
                self.dtype,
                sizes,
                {"past": past[i], "new": fresh[i], "present": present[i]},
                nothing,
                (1.0, 1.0),
            )
            for i in range(sets)
        ]

        def check() -> tuple[float, float]:
            for i in ends(sets):
                expected = torch.cat((before[i], fresh[i]), 1)
                if not torch.equal(present[i], expected):
                    return math.inf, math.inf
            return 0.0, 0.0

        def spoil() -> None:
            for i in ends(sets):
                present[i, :, 0 if self.grow else old :] = torch.nan

        if self.grow:
            same = [lambda i=i: torch.cat((past[i], fresh[i]), 1) for i in range(sets)]
            name = "torch cat"
        else:
            buffers = past.clone()
            same = [lambda i=i: buffers[i][:, old:].copy_(fresh[i]) for i in range(sets)]
            name = "torch copy into a slice"
        moved = self.bytes_moved()
        return Work(
            calls, moved, check, spoil, spec.tolerances[self.dtype], [(name, same, moved)], facts={"sets": sets}
        )
