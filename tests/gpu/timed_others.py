"""edgekit::TTSparseLinear and edgekit::TPAAppend to be timed, beside torch's dense product and copies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit.ops.registry import operator
from tests.gpu.timed_work import DTYPES, Machine, Work, closeness, ends, sets_of, workspace_of, worse


@dataclass(frozen=True)
class Linear:
    """TTSparseLinear of a rank and a number of entries per row, beside the dense product."""

    inputs: int
    outputs: int
    rank: int
    entries: int
    tokens: int = 1
    dtype: str = "float16"
    stem = "tt_sparse_linear"

    @property
    def name(self) -> str:
        return f"{self.inputs} x {self.outputs}"

    def bytes_moved(self) -> int:
        width = torch.finfo(DTYPES[self.dtype]).bits // 8
        pair = self.rank * (self.inputs + self.outputs)
        ends_moved = self.tokens * (self.inputs + self.outputs)
        return width * (pair + self.outputs * self.entries + ends_moved) + 2 * self.outputs * self.entries

    def prepare(self, machine: Machine) -> Work:
        spec = operator("TTSparseLinear")
        kind, device, sets = DTYPES[self.dtype], machine.device, sets_of(self.bytes_moved(), machine)
        width = kind.itemsize
        columns = torch.rand((self.outputs, self.inputs), device=device).argsort(1)[:, : self.entries].sort(1).values
        words = (columns[:, 0::2] | columns[:, 1::2] << 16).to(torch.int32)

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            return torch.randn((sets, *shape), device=device, dtype=kind) * scale

        operands = {
            "x": normal(1, self.tokens, self.inputs),
            "a": normal(self.rank, self.inputs, scale=self.inputs**-0.5),
            "b": normal(self.rank, self.outputs, scale=self.rank**-0.5),
            "columns": words.expand(sets, *words.shape).contiguous(),
            "values": normal(self.outputs, self.entries, scale=self.inputs**-0.5),
        }
        sizes = {
            "tokens": self.tokens, "inputs": self.inputs, "outputs": self.outputs, "rank": self.rank,
            "entries": self.entries,
        }  # fmt: skip
        workspace = workspace_of(machine, self.stem, self.dtype, sizes)
        results = [torch.full((1, self.tokens, self.outputs), torch.nan, device=device, dtype=kind) for _ in ends(sets)]
        calls = []
        for i in range(sets):
            tensors = {name: tensor[i] for name, tensor in operands.items()}
            tensors["y"] = results[0 if i == 0 else -1]
            calls.append(machine.call(self.stem, self.dtype, sizes, tensors, workspace, (1.0, 1.0)))
        attributes = spec.complete({"low_rank": 1, "bias": 0})

        def check() -> tuple[float, float]:
            worst = (0.0, 0.0)
            for i, y in zip(ends(sets), results, strict=True):
                wide = {n: x[i].double() if x.is_floating_point() else x[i] for n, x in operands.items()}
                worst = worse(worst, closeness(y, spec.reference(attributes, wide)["y"]))
            return worst

        def spoil() -> None:
            for y in results:
                y.fill_(torch.nan)

        dense_bytes = width * (self.inputs * self.outputs + self.tokens * (self.inputs + self.outputs))
        dense_sets = sets_of(dense_bytes, machine)
        weights = torch.randn((dense_sets, self.outputs, self.inputs), device=device, dtype=kind)
        inputs = torch.randn((dense_sets, self.tokens, self.inputs), device=device, dtype=kind)
        dense = [lambda i=i: torch.nn.functional.linear(inputs[i], weights[i]) for i in range(dense_sets)]
        return Work(
            calls,
            self.bytes_moved(),
            check,
            spoil,
            spec.tolerances[self.dtype],
            [("torch linear, dense", dense, dense_bytes)],
            facts={"sets": sets, "of_dense_bytes": self.bytes_moved() / dense_bytes},
        )


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
