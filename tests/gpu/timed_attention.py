"""edgekit::TPAAttention to be timed, beside torch's attention over an ordinary cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgekit.ops.registry import operator
from tests.gpu.timed_work import DTYPES, Machine, Work, closeness, ends, sets_of, workspace_of, worse


@dataclass(frozen=True)
class Attention:
    """TPAAttention, decoding `new` tokens in place into a cache that then holds `context`.

    `kv_heads`: of the ordinary cache that it is compared with.
    """

    name: str
    heads: int
    head_size: int
    ranks: tuple[int, int, int]
    context: int
    batch: int = 1
    new: int = 1
    dtype: str = "float16"
    kv_heads: int = 0
    dense: bool = False  # a dense query and constant A_K and A_V: a grouped-query model converted exactly
    stem = "tpa_attention"

    def bytes_moved(self) -> int:
        """All operands read once and written once; as in docs/kernels.md, for any number of new tokens and batch."""
        width, (rank_q, rank_k, rank_v) = torch.finfo(DTYPES[self.dtype]).bits // 8, self.ranks
        cached = 0 if self.dense else self.heads
        row = rank_k * (self.head_size + cached) + rank_v * (self.head_size + cached)
        query = self.heads * self.head_size if self.dense else rank_q * (self.heads + self.head_size)
        static = (rank_k + rank_v) * self.heads if self.dense else 0
        tokens = self.batch * self.new
        cache = self.batch * (self.context - self.new) * row + 2 * tokens * row
        return width * (cache + static + tokens * (query + self.heads * self.head_size)) + 8 * self.batch * self.context

    def operations(self) -> int:
        """Of attention with keys and values, counted causally: 2 for a multiply-add, for both products."""
        seen = self.new * (self.context - self.new) + self.new * (self.new + 1) // 2
        return 4 * self.batch * self.heads * self.head_size * seen

    def prepare(self, machine: Machine) -> Work:
        spec = operator("TPAAttention")
        kind, device, sets = DTYPES[self.dtype], machine.device, sets_of(self.bytes_moved(), machine)
        rank_q, rank_k, rank_v = self.ranks
        flags = (0, 0, 0) if self.dense else (1, 1, 1)
        norm = math.sqrt((1 if self.dense else rank_q) * rank_k * self.head_size)
        attributes = spec.complete(
            {
                "scale": 1.5 / norm,
                "value_scale": 1 / rank_v,
                **dict(zip(("factored_query", "contextual_key", "contextual_value"), flags, strict=True)),
                "in_place": 1,
            }
        )

        def normal(*shape: int) -> Tensor:
            return torch.randn((sets, *shape), device=device, dtype=kind)

        new, context, heads, size = (self.batch, self.new), (self.batch, self.context), self.heads, self.head_size
        drawn = {
            "a_q": None if self.dense else normal(*new, rank_q, heads),
            "b_q": normal(*new, heads if self.dense else rank_q, size),
            "a_k": normal(rank_k, heads) if self.dense else normal(*new, rank_k, heads),
            "b_k": normal(*new, rank_k, size),
            "a_v": normal(rank_v, heads) if self.dense else normal(*new, rank_v, heads),
            "b_v": normal(*new, rank_v, size),
            "past_a_k": None if self.dense else normal(*context, rank_k, heads),
            "past_b_k": normal(*context, rank_k, size),
            "past_a_v": None if self.dense else normal(*context, rank_v, heads),
            "past_b_v": normal(*context, rank_v, size),
            "attention_mask": torch.ones((sets, *context), device=device, dtype=torch.int64),
        }
        operands = {name: tensor for name, tensor in drawn.items() if tensor is not None}
        angles = torch.arange(self.context)[:, None] * 10000.0 ** (-torch.arange(size // 2) / (size // 2))
        shared = {
            "cos": angles.cos().to(device, kind),
            "sin": angles.sin().to(device, kind),
            "frequencies": torch.arange(size // 2, device=device),
        }
        sizes = {
            "batch": self.batch, "fresh": self.new, "total": self.context, "past_slots": self.context,
            "present_slots": self.context, "heads": heads, "key_size": size, "value_size": size,
            "rank_q": 0 if self.dense else rank_q, "rank_k": rank_k, "rank_v": rank_v,
            "rotary_rows": self.context, "rotary_columns": size // 2, "multiprocessors": machine.multiprocessors,
            "splits": 0, "factored_query": flags[0], "contextual_key": flags[1], "contextual_value": flags[2],
        }  # fmt: skip
        workspace = workspace_of(machine, self.stem, self.dtype, sizes)
        outputs = [torch.full((*new, heads, size), torch.nan, device=device, dtype=kind) for _ in ends(sets)]
        scales = (attributes["scale"], attributes["value_scale"])
        calls = []
        for i in range(sets):
            tensors = {name: tensor[i] for name, tensor in operands.items()} | shared
            tensors |= {name.replace("past", "present"): x for name, x in tensors.items() if name.startswith("past")}
            tensors["output"] = outputs[0 if i == 0 else -1]
            calls.append(machine.call(self.stem, self.dtype, sizes, tensors, workspace, scales))

        def check() -> tuple[float, float]:
            worst = (0.0, 0.0)
            for i, output in zip(ends(sets), outputs, strict=True):
                for row in ends(self.batch):
                    given = {
                        name: tensor[i] if tensor[i].ndim == 2 and name[:2] == "a_" else tensor[i][row : row + 1]
                        for name, tensor in operands.items()
                    }
                    wide = {name: x.double() if x.is_floating_point() else x for name, x in (given | shared).items()}
                    old = self.context - self.new
                    past = {name: wide[name][:, :old] for name in wide if name.startswith("past")}
                    expected = spec.reference(attributes, wide | past)
                    worst = worse(worst, closeness(output[row : row + 1], expected.pop("output")))
                    for name, rows in expected.items():
                        worst = worse(worst, closeness(given[name.replace("present", "past")], rows))
            return worst

        def spoil() -> None:
            for output in outputs:
                output.fill_(torch.nan)
            for name in operands:
                for i in ends(sets) if name.startswith("past") else ():
                    operands[name][i, :, self.context - self.new :] = torch.nan

        kv = self.kv_heads or heads
        return Work(
            calls,
            self.bytes_moved(),
            check,
            spoil,
            spec.tolerances[self.dtype],
            [self._ordinary(machine, kv)],
            self.operations() if self.new > 8 else 0,
            {"sets": sets},
        )

    def _ordinary(self, machine: Machine, kv_heads: int) -> tuple[str, list[Callable[[], Any]], int]:
        """torch's attention over an ordinary cache of keys and values, which is neither appended to nor rotated."""
        kind, device = DTYPES[self.dtype], machine.device
        cache = 2 * self.batch * kv_heads * self.context * self.head_size
        ends_moved = 2 * self.batch * self.new * self.heads * self.head_size
        moved = (cache + ends_moved) * (torch.finfo(kind).bits // 8)
        sets = sets_of(moved, machine)
        shape = (sets, self.batch, kv_heads, self.context, self.head_size)
        keys, values = (torch.randn(shape, device=device, dtype=kind) for _ in range(2))
        query = torch.randn((sets, self.batch, self.heads, self.new, self.head_size), device=device, dtype=kind)
        prefill = self.new == self.context
        attend = torch.nn.functional.scaled_dot_product_attention
        extra: dict[str, Any] = {"is_causal": prefill}
        if kv_heads != self.heads:
            extra["enable_gqa"] = True
        name = f"torch scaled_dot_product_attention, {kv_heads} key/value heads"
        if self.new > 1 and not prefill:
            name += ", without the causal mask"
        calls = [lambda i=i: attend(query[i], keys[i], values[i], **extra) for i in range(sets)]
        return name, calls, moved
