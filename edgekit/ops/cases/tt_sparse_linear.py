"""Cases of edgekit::TTSparseLinear: odd sizes, one token and many, rows of unequal fullness, columns beyond 32767."""

from __future__ import annotations

from functools import partial

import numpy as np

from edgekit.ops.cases._draw import Array, generator, numpy_dtype
from edgekit.ops.spec import Case
from edgekit.ops.specs.tt_sparse_linear import SPEC
from edgekit.ops.tt_sparse_rows import packed_rows


def cases() -> list[Case]:
    """Sizes are batch, tokens, K, O, R; the last number is the share of weights that the residual keeps."""
    return [
        _case("one-of-everything", (1, 1, 2, 1, 1), 0.5),
        _case("decode-67-to-131", (1, 1, 67, 131, 13), 0.1),
        _case("decode-256-to-192", (1, 1, 256, 192, 32), 0.05),
        _case("decode-three-sequences", (3, 1, 129, 65, 7), 0.2, bias=1),
        _case("two-tokens-rank-one", (1, 2, 33, 70, 1), 0.3, bias=1),
        _case("prefill-19", (1, 19, 100, 77, 9), 0.15),
        _case("prefill-2-by-71", (2, 71, 61, 35, 5), 0.1, bias=1),
        _case("prefill-300", (1, 300, 40, 9, 3), 0.2),
        _case("residual-alone", (1, 1, 95, 47, 0), 0.25),
        _case("residual-alone-prefill-37", (1, 37, 95, 47, 0), 0.25),
        _case("residual-alone-with-bias", (2, 3, 95, 47, 0), 0.25, bias=1),
        _case("empty-residual", (1, 4, 24, 18, 6), 0.0),
        _case("nearly-full-residual", (1, 1, 31, 20, 4), 0.9),
        _case("all-16-bits-of-a-column", (1, 1, 65536, 3, 2), 0.002, bias=1),
    ]


def _case(name: str, sizes: tuple[int, int, int, int, int], share: float, bias: int = 0) -> Case:
    attributes = SPEC.complete({"low_rank": int(sizes[4] > 0), "bias": bias})
    return Case(name, attributes, partial(_inputs, name, sizes, share, bias))


def _inputs(name: str, sizes: tuple[int, int, int, int, int], share: float, bias: int, dtype: str) -> dict[str, Array]:
    draw, (batch, tokens, inputs, outputs, rank) = generator(name), sizes
    kind = numpy_dtype(dtype)
    found = {"x": draw.standard_normal((batch, tokens, inputs)).astype(kind)}
    if rank:
        found["a"] = (draw.standard_normal((rank, inputs)) / np.sqrt(inputs)).astype(kind)
        found["b"] = (draw.standard_normal((rank, outputs)) / np.sqrt(rank)).astype(kind)
    residual = _residual(draw, outputs, inputs, share)
    columns, values = packed_rows(residual)
    found |= {"columns": columns, "values": values.astype(kind)}
    if bias:
        found["bias"] = draw.standard_normal(outputs).astype(kind)
    return found


def _residual(draw: np.random.Generator, outputs: int, inputs: int, share: float) -> Array:
    """[O, K], every row with a fullness of its own and a kept last column, at least one column free."""
    weights = draw.standard_normal((outputs, inputs))
    kept = draw.random((outputs, inputs)) < share
    if share:
        kept[:, -1] = True
    kept[:, 0] = False
    return np.where(kept, weights, 0)
