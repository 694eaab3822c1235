"""Appending to a cache, alone: for attention that is composed of standard operators."""

from __future__ import annotations

from edgekit.ops.spec import Axis, Form, Operand, OpSpec, Tolerance
from edgekit.ops.specs._cache import CACHE_AXES, DTYPES, IN_PLACE, PLUGIN, present_length

SPEC = OpSpec(
    name="TPAAppend",
    version=1,
    stem="tpa_append",
    summary="append new rows to a cache along its second axis, in place where there is room",
    source="the cache rule of TPAAttention",
    axes=(*CACHE_AXES, Axis("R", "rows per token: rank or heads"), Axis("W", "width of a row")),
    inputs=(
        Operand("past", "older rows, or the buffer", (Form(("B", "P", "R", "W")),)),
        Operand("new", "new rows", (Form(("B", "S", "R", "W")),)),
        Operand("attention_mask", "only its length is read", (Form(("B", "T")),), dtype="int64"),
    ),
    outputs=(Operand("present", "past and new rows", (Form(("B", "N", "R", "W")),), past="past"),),
    attributes=(IN_PLACE, *PLUGIN),
    dtypes=DTYPES,
    tolerances={dtype: Tolerance(1e-14, 0.0) for dtype in DTYPES},  # rows are copied
    derive=present_length,
)
