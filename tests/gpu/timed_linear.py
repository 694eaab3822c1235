"""edgekit::TTSparseLinear to be timed, beside torch's dense product."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgekit.ops.registry import operator
from edgekit.ops.specs.tt_sparse_linear import TILE
from edgekit.ops.tt_sparse_base import base_operands
from edgekit.ops.tt_sparse_rows import positions
from tests.gpu.timed_work import DTYPES, Machine, Work, closeness, ends, sets_of, workspace_of, worse
from tests.plugins.host_library import TT_SIZES

#: Numbers to a scale.
BLOCK = 64


@dataclass(frozen=True)
class Linear:
    """TTSparseLinear of a rank and a number of entries per row, beside the dense product.

    Attributes:
        rank: 0: no low-rank part.
        residual: 0: none, 1: columns, 2: a bitmap, 3: two of four, whatever `entries` says.
        base_bits: 0: no base; else codes with zero points.
        base_block: weights to a scale of the base.
    """

    inputs: int
    outputs: int
    rank: int
    entries: int
    tokens: int = 1
    dtype: str = "float16"
    residual: int = 1
    factor_bits: int = 0
    value_bits: int = 0
    base_bits: int = 0
    base_block: int = 64
    stem = "tt_sparse_linear"

    @property
    def name(self) -> str:
        stored = {0: self.dtype, 16: "float16", 8: "int8", 4: "int4"}
        parts = [f"{self.inputs} x {self.outputs}"]
        if self.base_bits:
            parts.append(f"base of {self.base_bits} bits by {self.base_block}")
        if self.rank:
            parts.append(f"{stored[self.factor_bits]} pair")
        if self.residual:
            where = {1: "columns", 2: "bitmap", 3: "2:4"}[self.residual]
            parts.append(f"{where} of {stored[self.value_bits]}")
        return ", ".join(parts)

    @property
    def kept(self) -> int:
        """Entries of each row."""
        return {0: 0, 3: self.inputs // 2}.get(self.residual, self.entries)

    def bytes_moved(self) -> int:
        width = torch.finfo(DTYPES[self.dtype]).bits // 8
        numbers = self._bytes(self.rank * (self.inputs + self.outputs), self.factor_bits)
        numbers += self._bytes(self.outputs * self.kept, self.value_bits)
        index = {0: 0, 1: 2 * self.kept + 4, 2: self.inputs / 8 + 4, 3: self.kept / 4}[self.residual]
        if self.base_bits:
            scales = -(-self.outputs // TILE) * TILE * -(-self.inputs // self.base_block)
            zeros = -(-scales * self.base_bits // 32) * 4
            numbers += scales * (self.base_block * self.base_bits / 8 + 2) + zeros
        return int(numbers + self.outputs * index + width * self.tokens * (self.inputs + self.outputs))

    def _bytes(self, count: int, bits: int) -> float:
        if bits in (8, 4):
            return count * (bits / 8 + 2 / BLOCK)
        return count * (2 if bits else torch.finfo(DTYPES[self.dtype]).bits // 8)

    def prepare(self, machine: Machine) -> Work:
        spec = operator("TTSparseLinear")
        kind, device, sets = DTYPES[self.dtype], machine.device, sets_of(self.bytes_moved(), machine)
        width, count = kind.itemsize, self.outputs * self.kept

        def normal(*shape: int, dtype: torch.dtype = kind, scale: float = 1.0) -> Tensor:
            return (torch.randn((sets, *shape), device=device) * scale).to(dtype)

        def numbers(name: str, scales: str, shape: tuple[int, ...], bits: int, scale: float) -> dict[str, Tensor]:
            if bits not in (8, 4):
                return {name: normal(*shape, dtype=torch.float16 if bits else kind, scale=scale)}
            size = math.prod(shape)
            words = torch.randint(-(2**31), 2**31, (sets, -(-size * bits // 32)), device=device, dtype=torch.int32)
            step = scale / 2 ** (bits - 1)
            return {name: words, scales: normal(-(-size // BLOCK), dtype=torch.float16, scale=step)}

        operands = {"x": normal(1, self.tokens, self.inputs)}
        if self.rank:
            operands |= numbers("a", "a_scales", (self.rank, self.inputs), self.factor_bits, self.inputs**-0.5)
            operands |= numbers("b", "b_scales", (self.rank, self.outputs), self.factor_bits, self.rank**-0.5)
        where = {name: torch.from_numpy(array).to(device) for name, array in self._fixed().items()}
        operands |= {name: array.expand(sets, *array.shape).contiguous() for name, array in where.items()}
        if count:
            operands |= numbers("values", "value_scales", (count,), self.value_bits, self.inputs**-0.5)
        parts = {"low_rank": int(self.rank > 0), "base_bits": self.base_bits, "zero_points": int(self.base_bits > 0)}
        attributes = spec.complete(parts | {
            "out_features": self.outputs, "rank": self.rank, "entries": count, "bias": 0,
            "residual": self.residual, "factor_bits": self.factor_bits, "value_bits": self.value_bits,
            "factor_block": BLOCK, "value_block": BLOCK, "base_block": self.base_block,
        })  # fmt: skip
        sizes = {"tokens": self.tokens, "inputs": self.inputs, "outputs": self.outputs}
        sizes |= {name: attributes[name] for name in TT_SIZES if name not in sizes}
        workspace = workspace_of(machine, self.stem, self.dtype, sizes)
        results = [torch.full((1, self.tokens, self.outputs), torch.nan, device=device, dtype=kind) for _ in ends(sets)]
        calls = []
        for i in range(sets):
            tensors = {name: tensor[i] for name, tensor in operands.items()}
            tensors["y"] = results[0 if i == 0 else -1]
            calls.append(machine.call(self.stem, self.dtype, sizes, tensors, workspace, (1.0, 1.0)))

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

    def _fixed(self) -> dict[str, np.ndarray]:
        """The base's operands and the entries' places, alike for every set of operands."""
        return self._base() | (self._positions() if self.residual else {})

    def _base(self) -> dict[str, np.ndarray]:
        if not self.base_bits:
            return {}
        draw, blocks = np.random.default_rng(self.outputs), -(-self.inputs // self.base_block)
        codes = draw.integers(0, 2**self.base_bits, (self.outputs, blocks, self.base_block), np.uint8)
        scales = draw.random((self.outputs, blocks)) * self.inputs**-0.5
        return base_operands(codes, scales, draw.integers(0, 2**self.base_bits, scales.shape, np.uint8), self.base_bits)

    def _positions(self) -> dict[str, np.ndarray]:
        """As many entries in each row."""
        scores = np.random.default_rng(self.inputs).random((self.outputs, self.inputs))
        if self.residual == 3:
            mask = (scores.reshape(-1, 4).argsort(1).argsort(1) < 2).reshape(scores.shape)
        else:
            mask = scores.argsort(1).argsort(1) < self.kept
        return positions(mask, self.residual, 2)
