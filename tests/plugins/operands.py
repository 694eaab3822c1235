"""Operands of TPAAttention at chosen sizes, for tests of the native kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from edgekit.ops.spec import Case
from edgekit.ops.specs.tpa_attention import SPEC


@dataclass(frozen=True)
class Shape:
    """Sizes. `ranks` of query, key, value; `free` slots follow the new tokens, where 0 the cache grows."""

    heads: int
    key_size: int
    value_size: int
    ranks: tuple[int, int, int]
    fresh: int = 1
    past: int = 70
    free: int = 0
    batch: int = 1
    variant: tuple[int, int, int] = (1, 1, 1)
    padding: int = 0


def case_of(shape: Shape, spread: float = 1.5) -> Case:
    """`spread`: of the scores. Padded slots and unused memory hold NaN."""
    factored, key, value = shape.variant
    rank_q, rank_k, rank_v = shape.ranks
    norm = math.sqrt((rank_q if factored else 1) * rank_k * shape.key_size)
    attributes = {
        "scale": float(np.float32(spread / norm)),
        "value_scale": float(np.float32(1 / rank_v)),
        "factored_query": factored,
        "contextual_key": key,
        "contextual_value": value,
        "in_place": int(shape.free > 0),
    }
    return Case(str(shape), SPEC.complete(attributes), lambda dtype: _inputs(shape, dtype), shape.free > 0)


def _inputs(shape: Shape, dtype: str) -> dict[str, np.ndarray]:
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    draw = np.random.default_rng(7)
    factored, key, value = shape.variant
    rank_q, rank_k, rank_v = shape.ranks
    total = shape.past + shape.fresh

    def tensor(*sizes: int) -> np.ndarray:
        return draw.standard_normal(sizes).astype(kind)

    def new(rank: int, width: int) -> np.ndarray:
        return tensor(shape.batch, shape.fresh, rank, width)

    def old(rank: int, width: int) -> np.ndarray:
        slots = total + shape.free if shape.free else shape.past
        made = np.full((shape.batch, slots, rank, width), np.nan, kind)
        made[:, shape.padding : shape.past] = tensor(shape.batch, shape.past - shape.padding, rank, width)
        return made

    mask = np.ones((shape.batch, total), np.int64)
    mask[:, : shape.padding] = 0
    angles = np.arange(total)[:, None] * 100.0 ** (-np.arange(shape.key_size // 2) / shape.key_size * 2)
    made: dict[str, Any] = {
        "a_q": new(rank_q, shape.heads) if factored else None,
        "b_q": new(rank_q if factored else shape.heads, shape.key_size),
        "a_k": new(rank_k, shape.heads) if key else tensor(rank_k, shape.heads),
        "b_k": new(rank_k, shape.key_size),
        "a_v": new(rank_v, shape.heads) if value else tensor(rank_v, shape.heads),
        "b_v": new(rank_v, shape.value_size),
        "past_a_k": old(rank_k, shape.heads) if key else None,
        "past_b_k": old(rank_k, shape.key_size),
        "past_a_v": old(rank_v, shape.heads) if value else None,
        "past_b_v": old(rank_v, shape.value_size),
        "attention_mask": mask,
        "cos": np.cos(angles).astype(kind),
        "sin": np.sin(angles).astype(kind),
        "frequencies": np.arange(shape.key_size // 2, dtype=np.int64),
    }
    return {name: array for name, array in made.items() if array is not None}
