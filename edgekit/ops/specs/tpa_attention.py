"""Tensor product attention over a cache of factors."""

from __future__ import annotations

from edgekit.ops.spec import Attribute, Axis, Form, Operand, OpSpec
from edgekit.ops.specs._cache import CACHE_AXES, DTYPES, IN_PLACE, PLUGIN, TOLERANCES, present_length

_QUERY, _KEY, _VALUE = (("factored_query", 1),), (("contextual_key", 1),), (("contextual_value", 1),)

SPEC = OpSpec(
    name="TPAAttention",
    version=1,
    stem="tpa_attention",
    summary="append factors of keys and values to the cache and attend causally, without materialising K or V",
    source="Tensor Product Attention Is All You Need (arXiv 2501.06425), sections 3.1-3.3",
    axes=(
        *CACHE_AXES,
        Axis("H", "heads"),
        Axis("D", "size of a head of queries and keys, even"),
        Axis("E", "size of a head of values"),
        Axis("R_Q", "rank of the queries"),
        Axis("R_K", "rank of the keys"),
        Axis("R_V", "rank of the values"),
        # Both are values on the device, which a GPU's caller cannot check without waiting for it.
        Axis("L", "positions in the rotary tables; a real token beyond them is refused on the CPU, NaN on a GPU"),
        Axis("F", "frequencies in the rotary tables; an entry beyond them is refused on the CPU, NaN on a GPU"),
    ),
    inputs=(
        Operand("a_q", "head factors of the queries", (Form(("B", "S", "R_Q", "H"), _QUERY),)),
        Operand(
            "b_q",
            "feature factors of the queries, or the queries themselves; not rotated",
            (Form(("B", "S", "R_Q", "D"), _QUERY), Form(("B", "S", "H", "D"), (("factored_query", 0),))),
        ),
        Operand(
            "a_k",
            "head factors of the new keys, or of all keys",
            (Form(("B", "S", "R_K", "H"), _KEY), Form(("R_K", "H"), (("contextual_key", 0),))),
        ),
        Operand("b_k", "feature factors of the new keys, not rotated", (Form(("B", "S", "R_K", "D")),)),
        Operand(
            "a_v",
            "head factors of the new values, or of all values",
            (Form(("B", "S", "R_V", "H"), _VALUE), Form(("R_V", "H"), (("contextual_value", 0),))),
        ),
        Operand("b_v", "feature factors of the new values", (Form(("B", "S", "R_V", "E")),)),
        Operand("past_a_k", "cache of a_k", (Form(("B", "P", "R_K", "H"), _KEY),)),
        Operand("past_b_k", "cache of b_k, rotated", (Form(("B", "P", "R_K", "D")),)),
        Operand("past_a_v", "cache of a_v", (Form(("B", "P", "R_V", "H"), _VALUE),)),
        Operand("past_b_v", "cache of b_v", (Form(("B", "P", "R_V", "E")),)),
        Operand("attention_mask", "1 real token, 0 padding", (Form(("B", "T")),), dtype="int64"),
        Operand("cos", "rotary table, a row per position", (Form(("L", "F")),)),
        Operand("sin", "rotary table, a row per position", (Form(("L", "F")),)),
        Operand(
            "frequencies", "column of the tables that turns the pair (j, j + D/2)", (Form(("D/2",)),), dtype="int64"
        ),
    ),
    outputs=(
        Operand("output", "attended values", (Form(("B", "S", "H", "E")),)),
        Operand("present_a_k", "past_a_k and a_k", (Form(("B", "N", "R_K", "H"), _KEY),), past="past_a_k"),
        Operand("present_b_k", "past_b_k and rotated b_k", (Form(("B", "N", "R_K", "D")),), past="past_b_k"),
        Operand("present_a_v", "past_a_v and a_v", (Form(("B", "N", "R_V", "H"), _VALUE),), past="past_a_v"),
        Operand("present_b_v", "past_b_v and b_v", (Form(("B", "N", "R_V", "E")),), past="past_b_v"),
    ),
    attributes=(
        Attribute("scale", "float", "factor on the scores: 1 / (R_Q R_K sqrt(D)) in the paper"),
        Attribute("value_scale", "float", "factor on the output: 1 / R_V in the paper"),
        Attribute("factored_query", "int", "1: queries come as factors a_q and b_q; 0: dense", variant=True),
        Attribute("contextual_key", "int", "1: a_k per token and cached; 0: constant", variant=True),
        Attribute("contextual_value", "int", "1: a_v per token and cached; 0: constant", variant=True),
        IN_PLACE,
        *PLUGIN,
    ),
    dtypes=DTYPES,
    tolerances=TOLERANCES,
    derive=present_length,
)
