"""Cases of edgekit::TPAAppend."""

from __future__ import annotations

from functools import partial

import numpy as np

from edgekit.ops.cases._draw import Array, buffer, generator, numpy_dtype
from edgekit.ops.spec import Case
from edgekit.ops.specs.tpa_append import SPEC


def cases() -> list[Case]:
    """Growing and in place, with and without a past, odd widths."""
    return [
        _case("first-token", 1, 1, 0, 3, 7),
        _case("prefill-70", 2, 70, 0, 2, 5),
        _case("decode-65", 3, 1, 64, 2, 61),
        _case("verify-131-width-one", 2, 3, 128, 47, 1),
        _case("in-place-first-token", 1, 1, 0, 3, 7, capacity=4),
        _case("in-place-prefill-37", 2, 37, 0, 2, 5, capacity=64),
        _case("in-place-decode-65-of-131", 3, 1, 64, 2, 61, capacity=131),
        _case("in-place-full", 2, 3, 128, 3, 6, capacity=131),
    ]


def _case(name: str, batch: int, new: int, past: int, rows: int, width: int, capacity: int = 0) -> Case:
    """`past` older rows; in a buffer where there is a capacity."""
    made = partial(_inputs, name, (batch, new, past, rows, width), capacity)
    return Case(name, SPEC.complete({"in_place": int(capacity > 0)}), made, capacity > 0)


def _inputs(name: str, sizes: tuple[int, ...], capacity: int, dtype: str) -> dict[str, Array]:
    draw, (batch, new, past, rows, width) = generator(name), sizes
    old = draw.standard_normal((batch, past, rows, width)).astype(numpy_dtype(dtype))
    return {
        "past": buffer(old, capacity) if capacity else old,
        "new": draw.standard_normal((batch, new, rows, width)).astype(numpy_dtype(dtype)),
        "attention_mask": np.ones((batch, past + new), np.int64),
    }
