"""Cases of edgekit::TPAAttention: odd head numbers and lengths, ragged batches, memory that holds NaN.

Native code works in blocks of 64 slots or so; the lengths sit beside multiples of that, and paddings above 64 and 128
mask whole blocks.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgekit.ops.cases._draw import Array, buffer, exact_in_float32, generator, numpy_dtype
from edgekit.ops.spec import Case
from edgekit.ops.specs.tpa_attention import SPEC

_POSITIONS = 300


@dataclass(frozen=True)
class Drawn:
    """What a case draws.

    Attributes:
        new, old: new and cached tokens. capacity: of the buffers; 0 where the cache grows.
        sizes: H, D, E. ranks: R_Q, R_K, R_V. variant: factored query, contextual key, contextual value.
        padding: leading zeros in each row of the mask. holes: (row, slot) of further ones.
        frequencies: column of the rotary tables per pair; empty for plain RoPE.
        poison: padded slots and padded new tokens hold NaN.
    """

    name: str
    batch: int
    new: int
    old: int
    sizes: tuple[int, int, int]
    ranks: tuple[int, int, int]
    variant: tuple[int, int, int] = (1, 1, 1)
    padding: tuple[int, ...] = ()
    holes: tuple[tuple[int, int], ...] = ()
    frequencies: tuple[int, ...] = ()
    capacity: int = 0
    poison: bool = False


def cases() -> list[Case]:
    """Every case."""
    return [_case(drawn) for drawn in (*_LENGTHS, *_PADDED, *_IN_PLACE, *_VARIANTS, *_TABLES)]


_LENGTHS = (
    Drawn("one-token-47-heads", 1, 1, 0, (47, 4, 3), (2, 1, 2)),
    Drawn("decode-37-61-heads", 1, 1, 36, (61, 6, 4), (6, 2, 3)),
    Drawn("decode-65-47-heads", 2, 1, 64, (47, 8, 6), (3, 2, 1)),
    Drawn("decode-131", 1, 1, 130, (7, 6, 10), (4, 3, 2)),
    Drawn("decode-257-61-heads", 2, 1, 256, (61, 4, 6), (2, 2, 3)),
    Drawn("decode-131-published-shape", 1, 1, 130, (12, 64, 64), (6, 2, 2)),
    Drawn("verify-131", 2, 3, 128, (9, 8, 8), (6, 2, 2)),
    Drawn("prefill-37", 2, 37, 0, (5, 8, 12), (3, 2, 1)),
    Drawn("prefill-70-47-heads", 1, 70, 0, (47, 4, 6), (2, 2, 3)),
    Drawn("prefill-70-after-61", 1, 70, 61, (5, 6, 4), (2, 3, 1)),
    Drawn("prefill-257", 1, 257, 0, (3, 4, 4), (2, 1, 2)),
)
_PADDED = (
    Drawn("decode-131-first-block-masked", 2, 1, 130, (7, 6, 4), (2, 2, 3), padding=(65, 0)),
    Drawn("decode-257-two-blocks-masked", 3, 1, 256, (5, 8, 6), (3, 2, 2), padding=(129, 66, 7), poison=True),
    Drawn("verify-131-ragged", 3, 3, 128, (61, 4, 6), (2, 3, 2), padding=(0, 66, 129), poison=True),
    Drawn("prefill-70-ragged", 3, 70, 0, (9, 6, 4), (2, 1, 2), padding=(67, 0, 31)),
    Drawn("prefill-70-ragged-poisoned", 3, 70, 0, (9, 6, 4), (2, 1, 2), padding=(67, 0, 31), poison=True),
    Drawn("prefill-70-after-61-ragged", 2, 70, 61, (5, 6, 4), (2, 3, 1), padding=(66, 130), poison=True),
    Drawn("a-row-of-padding-alone", 2, 2, 65, (5, 6, 4), (2, 2, 1), padding=(67, 3)),
    Drawn("holes-in-the-mask", 2, 3, 66, (5, 6, 4), (2, 2, 1), holes=((0, 2), (0, 64), (0, 67), (1, 40)), poison=True),
)
_IN_PLACE = (
    Drawn("in-place-first-token", 1, 1, 0, (7, 6, 4), (2, 2, 3), capacity=5),
    Drawn("in-place-decode-65-of-100", 2, 1, 64, (47, 6, 4), (2, 2, 3), capacity=100),
    Drawn("in-place-full", 2, 1, 130, (7, 6, 4), (2, 2, 3), padding=(65, 0), capacity=131),
    Drawn("in-place-verify-ragged", 3, 3, 128, (9, 6, 8), (3, 1, 2), padding=(0, 66, 129), capacity=257, poison=True),
    Drawn("in-place-prefill-70", 2, 70, 0, (5, 6, 4), (2, 3, 1), padding=(0, 67), capacity=96, poison=True),
    Drawn("in-place-prefill-70-after-61", 1, 70, 61, (5, 6, 4), (2, 3, 1), capacity=200),
    Drawn("in-place-constant-factors", 2, 1, 64, (7, 6, 4), (2, 2, 3), (0, 0, 0), (0, 9), capacity=80, poison=True),
)
_VARIANTS = tuple(
    Drawn(f"variant-{q}{k}{v}{suffix}", 2, new, old, (11, 6, 8), (3, 2, 3), (q, k, v), (0, 66), poison=True)
    for q, k, v in itertools.product((1, 0), repeat=3)
    for suffix, new, old in (("-decode-131", 1, 130), ("-prefill-70", 70, 0))
)
_TABLES = (
    Drawn("frequencies-repeated", 2, 1, 64, (5, 12, 8), (2, 3, 2), (0, 0, 0), (0, 9), frequencies=(0, 0, 3, 1, 3, 5)),
    Drawn("frequencies-dropped", 2, 37, 0, (5, 6, 8), (2, 3, 2), (0, 1, 0), frequencies=(1, 4, 5)),
    Drawn("one-pair-multi-query", 1, 1, 36, (9, 2, 2), (1, 1, 1), (0, 0, 0)),
)


def _case(drawn: Drawn) -> Case:
    factored, key, value = drawn.variant
    _, size, _ = drawn.sizes
    query_rank, key_rank, value_rank = drawn.ranks
    # 1.5 times the spread of scores that standard normal factors have, so that the softmax has a shape.
    spread = math.sqrt((query_rank if factored else 1) * key_rank * size)
    attributes = {
        "scale": exact_in_float32(1.5 / spread),
        "value_scale": exact_in_float32(1 / value_rank),
        "factored_query": factored,
        "contextual_key": key,
        "contextual_value": value,
        "in_place": int(drawn.capacity > 0),
    }
    return Case(drawn.name, SPEC.complete(attributes), partial(_inputs, drawn), drawn.capacity > 0)


def _inputs(drawn: Drawn, dtype: str) -> dict[str, Array]:
    draw, kind = generator(drawn.name), numpy_dtype(dtype)
    (heads, size, value_size), (query_rank, key_rank, value_rank) = drawn.sizes, drawn.ranks
    factored, key, value = drawn.variant
    mask = _mask(drawn)

    def rows(first: int, last: int, rank: int, width: int) -> Array:
        """Of the slots first .. last - 1."""
        made = draw.standard_normal((drawn.batch, last - first, rank, width)).astype(kind)
        if drawn.poison:
            made[mask[:, first:last] == 0] = np.nan
        return made

    def new(rank: int, width: int) -> Array:
        return rows(drawn.old, drawn.old + drawn.new, rank, width)

    def old(rank: int, width: int) -> Array:
        kept = rows(0, drawn.old, rank, width)
        return buffer(kept, drawn.capacity) if drawn.capacity else kept

    def constant(rank: int) -> Array:
        return draw.standard_normal((rank, heads)).astype(kind)

    found: dict[str, Any] = {
        "a_q": new(query_rank, heads) if factored else None,
        "b_q": new(query_rank if factored else heads, size),
        "a_k": new(key_rank, heads) if key else constant(key_rank),
        "b_k": new(key_rank, size),
        "a_v": new(value_rank, heads) if value else constant(value_rank),
        "b_v": new(value_rank, value_size),
        "past_a_k": old(key_rank, heads) if key else None,
        "past_b_k": old(key_rank, size),
        "past_a_v": old(value_rank, heads) if value else None,
        "past_b_v": old(value_rank, value_size),
        "attention_mask": mask,
    }
    columns = drawn.frequencies or tuple(range(size // 2))
    table = max(columns) + 1
    angles = np.arange(_POSITIONS)[:, None] * 50.0 ** (-np.arange(table) / table)
    found |= {"cos": np.cos(angles).astype(kind), "sin": np.sin(angles).astype(kind)}
    found["frequencies"] = np.array(columns, np.int64)
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _mask(drawn: Drawn) -> Array:
    mask = np.ones((drawn.batch, drawn.old + drawn.new), np.int64)
    for row, zeros in enumerate(drawn.padding):
        mask[row, :zeros] = 0
    for row, slot in drawn.holes:
        mask[row, slot] = 0
    return mask
